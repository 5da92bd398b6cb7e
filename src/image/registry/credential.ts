import { homedir } from "node:os";
import { join } from "node:path";
import { mkdir } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { readSmallFile, writeFileAtomic } from "../../host/file.ts";
import { run } from "../../host/process.ts";
import type { Credentials } from "../contract.ts";
import { object, parseObject } from "../manifest.ts";

/**
 * Who we are to a registry: what `croft login` wrote, else what docker's configuration of the same user says.
 *
 * Both files have docker's format. They are read anew each time, so a login counts from the next pull on; a file with a
 * mistake in it is a Fault that names it, never "no credentials".
 */
export class CredentialStore {
  readonly #ownPath: string;
  readonly #dockerPath: string;

  /** `dockerDir` is for tests; otherwise docker's own choice, `DOCKER_CONFIG` or `~/.docker`. */
  constructor(etcDir: string, dockerDir: string = process.env["DOCKER_CONFIG"] ?? join(homedir(), ".docker")) {
    this.#ownPath = join(etcDir, "auth.json");
    this.#dockerPath = join(dockerDir, "config.json");
  }

  /** The credentials for a registry, `docker.io` or `localhost:5000`; undefined when none are known. */
  async find(domain: string, call: Call): Promise<Credentials | undefined> {
    const own = fromEntries(await this.#read(this.#ownPath), domain, this.#ownPath);
    if (own !== undefined) return own;
    const docker = await this.#read(this.#dockerPath);
    const helpers = object(docker["credHelpers"] ?? {}, "credHelpers", this.#dockerPath);
    const key = keysOf(domain).find((candidate) => Object.hasOwn(helpers, candidate));
    const helper = key === undefined ? docker["credsStore"] : helpers[key];
    if (typeof helper === "string" && helper !== "") {
      const found = await askHelper(helper, key ?? serverName(domain), call);
      if (found !== undefined) return found;
    }
    return fromEntries(docker, domain, this.#dockerPath);
  }

  async save(domain: string, credentials: Credentials): Promise<void> {
    if (credentials.username.includes(":")) throw new Fault("invalid", "a user name cannot contain a colon");
    const auth = Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64");
    await this.#write((auths) => ({ ...auths, [domain]: { auth } }));
  }

  async forget(domain: string): Promise<void> {
    await this.#write((auths) => Object.fromEntries(Object.entries(auths).filter(([key]) => key !== domain)));
  }

  async #write(change: (auths: Readonly<Record<string, unknown>>) => object): Promise<void> {
    const document = await this.#read(this.#ownPath);
    const auths = change(object(document["auths"] ?? {}, "auths", this.#ownPath));
    await mkdir(join(this.#ownPath, ".."), { recursive: true });
    await writeFileAtomic(this.#ownPath, `${JSON.stringify({ ...document, auths }, null, 2)}\n`);
  }

  async #read(path: string): Promise<Readonly<Record<string, unknown>>> {
    try {
      return parseObject(await readSmallFile(path), 2 ** 20, path);
    } catch (error) {
      if (isFault(error, "not-found")) return {};
      throw error;
    }
  }
}

/** How docker writes a registry down; for docker.io it kept the address of its first interface. */
function keysOf(domain: string): readonly string[] {
  const names = domain === "docker.io" ? ["docker.io", "index.docker.io", "registry-1.docker.io"] : [domain];
  return names.flatMap((name) => [
    name,
    ...["", "/", "/v1/", "/v2/", "/v1", "/v2"].map((path) => `https://${name}${path}`),
  ]);
}

function serverName(domain: string): string {
  return domain === "docker.io" ? "https://index.docker.io/v1/" : domain;
}

function fromEntries(
  document: Readonly<Record<string, unknown>>,
  domain: string,
  path: string,
): Credentials | undefined {
  const auths = object(document["auths"] ?? {}, "auths", path);
  const key = keysOf(domain).find((candidate) => Object.hasOwn(auths, candidate));
  if (key === undefined) return undefined;
  const entry = object(auths[key], key, path);
  if (typeof entry["username"] === "string" && typeof entry["password"] === "string") {
    return { username: entry["username"], password: entry["password"] };
  }
  // An entry without `auth` only says that a helper has the credentials.
  if (typeof entry["auth"] !== "string" || entry["auth"] === "") return undefined;
  const text = Buffer.from(entry["auth"], "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 1) {
    throw new Fault("invalid", `${path}: the entry for ${key} does not hold a user name and a password`, {
      hint: `log in again: croft login ${domain}`,
    });
  }
  // Docker ends short passwords with NUL bytes on some platforms.
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, "") };
}

/** Asks a program `docker-credential-<name>`, as docker does: the server on stdin, JSON on stdout. */
async function askHelper(name: string, server: string, call: Call): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) {
    throw new Fault("invalid", `docker's configuration names a credential helper "${name.slice(0, 60)}"`);
  }
  const program = `docker-credential-${name}`;
  // Helpers lie where this process finds programs, and keep their secrets in the user's home and session; 1 says that there is nothing for this server.
  const env = Object.fromEntries(
    ["PATH", "HOME", "USER", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "PASSWORD_STORE_DIR", "GNUPGHOME"].flatMap(
      (key) => {
        const value = process.env[key];
        return value === undefined ? [] : [[key, value]];
      },
    ),
  );
  const attempted = `ask ${program} for the credentials of ${server}`;
  const finished = await run(
    [program, "get"],
    { input: server, env, okCodes: [0, 1], timeoutMs: 30_000, attempted },
    call,
  );
  if (finished.code === 1) return undefined;
  const answer = parseObject(Buffer.from(finished.stdout), 2 ** 16, `the answer of ${program}`);
  const { Username: username, Secret: password } = answer;
  if (typeof username !== "string" || typeof password !== "string" || username === "") return undefined;
  if (username === "<token>") {
    throw new Fault("unsupported", `${program} holds an identity token for ${server}, not a password`, {
      hint: "log in with an access token as password: croft login",
    });
  }
  return { username, password };
}
