import { join } from "node:path";
import { parse } from "smol-toml";
import { Fault } from "../base/fault.ts";
import type { Home } from "../base/home.ts";
import { isDigest } from "../base/id.ts";
import { fileExists, readSmallFile } from "../host/file.ts";
import { parseSubnet } from "../network/address.ts";
import type { TcpListening } from "../api/listen.ts";
import type { KeptToken } from "../api/token.ts";

/** What `<etcDir>/croftd.toml` may say; every line is optional. */
export interface Config {
  /** Subnets of networks that name none. */
  readonly subnetPool: string;
  /** Where the API is served besides its socket. */
  readonly tcp?: TcpListening;
}

const defaults: Config = { subnetPool: "10.86.0.0/16" };

/**
 *     subnet-pool = "10.86.0.0/16"
 *
 *     [listen]
 *     address  = "127.0.0.1:7443"
 *     tls-cert = "/etc/croft/tls.crt"       # without TLS only for loopback
 *     tls-key  = "/etc/croft/tls.key"
 *
 *     [token.laptop]
 *     digest = "sha256:…"                   # croft token create laptop
 */
export async function readConfig(home: Home): Promise<Config> {
  const path = join(home.etcDir, "croftd.toml");
  if (!(await fileExists(path))) return defaults;
  const wrong = (what: string): Fault => new Fault("invalid", `${path}: ${what}`);
  let document: Record<string, unknown>;
  try {
    document = parse((await readSmallFile(path)).toString("utf8"));
  } catch (error) {
    throw new Fault("invalid", `${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  const { "subnet-pool": subnetPool = defaults.subnetPool, listen, token } = document;
  refuseStrangers(document, ["subnet-pool", "listen", "token"], "", wrong);
  if (!isSubnet(subnetPool)) throw wrong('subnet-pool is a subnet, such as "10.86.0.0/16"');
  const tokens = tokensOf(token, wrong);
  if (listen === undefined) return { subnetPool };
  const section = table(listen, wrong);
  refuseStrangers(section, ["address", "tls-cert", "tls-key"], "listen.", wrong);
  const { address, "tls-cert": certPath, "tls-key": keyPath } = section;
  const match = /^(\[[0-9a-f:]+\]|[0-9.]+):([0-9]{1,5})$/.exec(typeof address === "string" ? address : "");
  if (match === null) throw wrong('listen.address is an address and a port, such as "127.0.0.1:7443"');
  if ((certPath === undefined) !== (keyPath === undefined))
    throw wrong("listen.tls-cert and listen.tls-key go together");
  const tls =
    typeof certPath === "string" && typeof keyPath === "string"
      ? { cert: (await readSmallFile(certPath)).toString("utf8"), key: (await readSmallFile(keyPath)).toString("utf8") }
      : undefined;
  const host = (match[1] ?? "").replace(/[[\]]/g, "");
  if (tls === undefined && !host.startsWith("127.") && host !== "::1") {
    throw wrong(
      "listen.address beyond loopback needs listen.tls-cert and listen.tls-key: a token must not travel in the clear",
    );
  }
  if (tokens.length === 0)
    throw wrong("listen needs at least one [token.NAME] with its digest; make one: croft token create NAME");
  const tcp = { host, port: Number(match[2]), tokens, ...(tls === undefined ? {} : { tls }) };
  return { subnetPool, tcp };
}

function tokensOf(section: unknown, wrong: (what: string) => Fault): readonly KeptToken[] {
  return Object.entries(section === undefined ? {} : table(section, wrong)).map(([name, value]) => {
    const kept = table(value, wrong);
    refuseStrangers(kept, ["digest"], `token.${name}.`, wrong);
    const { digest } = kept;
    if (typeof digest !== "string" || !isDigest(digest))
      throw wrong(`token.${name}.digest is "sha256:" and 64 hex digits`);
    return { name, digest };
  });
}

/** What is misspelt would otherwise be as if it were not there. */
function refuseStrangers(
  section: Readonly<Record<string, unknown>>,
  known: readonly string[],
  prefix: string,
  wrong: (what: string) => Fault,
): void {
  const stranger = Object.keys(section).find((key) => !known.includes(key));
  if (stranger === undefined) return;
  throw wrong(`there is no setting "${prefix}${stranger}"; there is: ${known.map((key) => prefix + key).join(", ")}`);
}

function isSubnet(value: unknown): value is string {
  try {
    return typeof value === "string" && parseSubnet(value) !== undefined;
  } catch {
    return false;
  }
}

function table(value: unknown, wrong: (what: string) => Fault): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw wrong("listen, token and each token are tables");
  return value as Record<string, unknown>;
}
