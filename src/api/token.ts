import { randomBytes, timingSafeEqual } from "node:crypto";
import { sha256, type Digest } from "../base/id.ts";
import { Fault } from "../base/fault.ts";

/** A token as the daemon keeps it: whoever reads its configuration cannot use it. */
export interface KeptToken {
  /** Named as the author of what its holder does. */
  readonly name: string;
  readonly digest: Digest;
}

/** A new token: 256 random bits, so that a plain digest of it cannot be guessed back. */
export function createToken(name: string): { readonly token: string; readonly kept: KeptToken } {
  const token = `croft_${randomBytes(32).toString("base64url")}`;
  return { token, kept: { name, digest: sha256(token) } };
}

/** The name of the token in an `Authorization` header. Throws `unauthenticated` when it is none of `kept`. */
export function authenticate(header: string | undefined, kept: readonly KeptToken[]): string {
  const [, token] = /^bearer +(\S+)$/i.exec(header ?? "") ?? [];
  if (token === undefined) {
    throw new Fault("unauthenticated", "a token is needed over TCP", { hint: "send Authorization: Bearer <token>" });
  }
  // Digests are compared, all of them and in constant time: how long it takes tells nothing about any token.
  const digest = Buffer.from(sha256(token));
  let holder: KeptToken | undefined;
  for (const candidate of kept) if (timingSafeEqual(digest, Buffer.from(candidate.digest))) holder = candidate;
  if (holder === undefined) throw new Fault("unauthenticated", "the token is not known here");
  return holder.name;
}
