import { Fault } from "../base/fault.ts";
import { type Digest, isDigest } from "../base/id.ts";

/**
 * The names of images, as docker and every OCI registry understand them.
 *
 * A name is normalised once, at the door, so that `nginx` and `docker.io/library/nginx:latest` are one key everywhere
 * else. The grammar is that of the distribution project; its length limits are checked first, so that no pattern here
 * ever sees a long hostile text.
 */
export interface Reference {
  /** The registry: `docker.io`, `localhost:5000`, `[::1]:5000`. Lower-case unless written otherwise. */
  readonly domain: string;
  /** The repository in it: `library/nginx`. */
  readonly path: string;
  /** Absent only when there is a digest. */
  readonly tag?: string;
  readonly digest?: Digest;
}

/** The longest `domain/path` that registries take. */
const maxNameLength = 255;
const maxTagLength = 128;

const domainComponent = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
const domainPattern = new RegExp(
  String.raw`^(?:${domainComponent}(?:\.${domainComponent})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$`,
);
const componentPattern = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^\w[\w.-]{0,127}$/;

/** Reads a name as a person writes it. Throws an `invalid` Fault that says which part is wrong. */
export function parseReference(text: string): Reference {
  if (text.length > maxNameLength + maxTagLength + 80) throw invalid(text.slice(0, 60), "it is too long");
  const at = text.indexOf("@");
  const digestText = at === -1 ? undefined : text.slice(at + 1);
  const named = at === -1 ? text : text.slice(0, at);
  if (digestText !== undefined && !isDigest(digestText)) {
    throw invalid(text, "after the @ stands sha256: and 64 lower-case hexadecimal digits");
  }
  // A colon after the last slash starts a tag; one before it belongs to a port or an address.
  const colon = named.indexOf(":", named.lastIndexOf("/") + 1);
  const tag = colon === -1 ? undefined : named.slice(colon + 1);
  if (tag !== undefined && !tagPattern.test(tag)) throw invalid(text, `"${tag}" is not a tag`);
  const { domain, path } = splitName(colon === -1 ? named : named.slice(0, colon), text);
  if (digestText === undefined) return { domain, path, tag: tag ?? "latest" };
  return tag === undefined ? { domain, path, digest: digestText } : { domain, path, tag, digest: digestText };
}

/** The canonical text: parsing it gives an equal reference. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${reference.domain}/${reference.path}${tag}${digest}`;
}

/** True for names of images built here, `localhost/shop/site:latest`: no registry is ever asked for them. */
export function isLocalOnly(reference: Reference): boolean {
  return reference.domain === "localhost";
}

function splitName(name: string, text: string): { domain: string; path: string } {
  if (/^[a-f0-9]{64}$/.test(name)) {
    throw invalid(text, "64 hexadecimal digits alone are a digest without sha256:");
  }
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  const isDomain = /[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase();
  const written = isDomain ? first : "docker.io";
  const domain = written === "index.docker.io" ? "docker.io" : written;
  const rest = isDomain ? name.slice(slash + 1) : name;
  const path = domain === "docker.io" && !rest.includes("/") ? `library/${rest}` : rest;
  if (domain.length + 1 + path.length > maxNameLength) {
    throw invalid(text.slice(0, 60), `a name has at most ${maxNameLength} characters`);
  }
  if (!domainPattern.test(domain)) throw invalid(text, `"${domain}" is not the address of a registry`);
  for (const component of path.split("/")) {
    if (componentPattern.test(component)) continue;
    throw invalid(text, component === "" ? "a part of it is empty" : `"${component}" is not allowed in a name`);
  }
  return { domain, path };
}

function invalid(text: string, why: string): Fault {
  return new Fault("invalid", `"${text}" is not the name of an image: ${why}`, {
    hint: "write name, name:tag or registry/name:tag in lower case, such as nginx:1.27 or localhost:5000/site:2",
  });
}
