import type { Command } from "../process.ts";

export type PeerName = "docker" | "podman" | "ctr" | "crun" | "runc" | "virsh" | "qemu" | "cold";

/**
 * One way to run containers, driven by its own command line as a person drives it. What a peer has no word for it leaves
 * out, and its column stays empty.
 */
export interface Contender {
  readonly name: "croft" | PeerName;
  /** The process that stays while nothing runs, with all that belongs to it. */
  readonly daemonPid?: number;
  /** Brings the busybox image in, from a docker archive. */
  readonly load: (archive: string) => void;
  /** Runs it with an address of its own, waits, and leaves nothing. */
  readonly runOnce: (id: string, argv: readonly string[]) => Command;
  /** Starts it and returns once it runs. */
  readonly runDetached: (id: string, argv: readonly string[]) => Command;
  readonly exec: (id: string, argv: readonly string[]) => Command;
  /** Ends and removes these. */
  readonly remove: (ids: readonly string[]) => void;
  readonly ps?: () => Command;
  /** Where the API listens, and the request that lists all containers. */
  readonly api?: { readonly socketPath: string; readonly path: string };
  /** From a registry until a container could start from it. */
  readonly pull?: (reference: string) => Command;
  /** As if it had never been pulled. */
  readonly forget?: (reference: string) => Promise<void> | void;
  /** Ends its daemon and everything that it started. */
  readonly stop: () => Promise<void>;
}

/** Program in the busybox image that all of them run. */
export const busybox = "/bin/busybox";
