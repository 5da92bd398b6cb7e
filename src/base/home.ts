import { join } from "node:path";
import { shortHash } from "./id.ts";

/**
 * Where one daemon keeps its things, and the prefix that everything of it on the host carries.
 *
 * The default home is `/var/lib/croft`, `/run/croft`, `/etc/croft` with the prefix `croft`. Any other root directory
 * gets a prefix derived from its path, so that several daemons (tests) on one machine never meet.
 */
export interface Home {
  /** Durable state: database, images, volumes, writable layers. */
  readonly libDir: string;
  /** State that goes with a reboot, on tmpfs where it is the default: sockets, mounts, network namespaces, secrets. */
  readonly runDir: string;
  /** Configuration a person writes. */
  readonly etcDir: string;
  /** `croft`, or `cr-` and four characters. Starts every link, table, cgroup and namespace name; at most 7 characters. */
  readonly prefix: string;
  /** The daemon's unix socket. */
  readonly socketPath: string;
}

export function defaultHome(): Home {
  return { ...placesOf("/var/lib/croft", "/run/croft", "/etc/croft"), prefix: "croft" };
}

/** The home beneath `rootDir`, an absolute path: `lib/`, `run/` and `etc/` in it. */
export function homeBeneath(rootDir: string): Home {
  let prefix: string | undefined;
  return {
    ...placesOf(join(rootDir, "lib"), join(rootDir, "run"), join(rootDir, "etc")),
    // Who only looks for the socket does not need it.
    get prefix() {
      prefix ??= `cr-${shortHash(rootDir, 4)}`;
      return prefix;
    },
  };
}

function placesOf(libDir: string, runDir: string, etcDir: string): Omit<Home, "prefix"> {
  return { libDir, runDir, etcDir, socketPath: join(runDir, "croft.sock") };
}

/** A network link's name: prefix, dash, seven hex digits. The kernel allows 15 characters. */
export function linkName(home: Home, seed: string): string {
  return `${home.prefix}-${shortHash(seed, 7)}`;
}

/** Whether a link of that name belongs to this home or another one on the machine. */
export function isOfSomeHome(link: string): boolean {
  return /^(croft|cr-[0-9a-f]{4})-[0-9a-f]{7}$/.test(link);
}

/** The nftables tables of this home (`inet` and `bridge` family); nftables identifiers take no dash. */
export function tableName(home: Home): string {
  return home.prefix.replace("-", "_");
}
