import { join } from "node:path";
import { readBoundedFile } from "../../../host/bounded-file.ts";
import type { InstancePaths } from "../../monitor/layout.ts";

/** What a microVM has besides what `InstancePaths` names; of one run, and made anew by each. */
export interface MachinePaths {
  /** Everything below is in it. */
  readonly dir: string;
  /** The only directory that QEMU sees: its sockets. */
  readonly socketDir: string;
  /** Lines to and from the guest's first process. */
  readonly controlSocket: string;
  /** Bytes to and from dropbear. */
  readonly shellSocket: string;
  readonly qmpSocket: string;
  /** What the guest wrote last: exit code and OOM kills. Never more than `exitBytes`. */
  readonly exitFile: string;
  /** There as soon as the guest said that its program runs: `Started`. */
  readonly startedFile: string;
  /** By what this run's dropbear is known: `KeyRecord`. */
  readonly keyFile: string;
  /** Who serves its volumes: `ProcessIdentity`s. */
  readonly volumesFile: string;
  /** What the machine was made as: `MadeAs`. */
  readonly madeFile: string;
}

/** Of `exitFile`: more than the guest's scripts ever write, and all that it can write. */
export const exitBytes = 64;

/** What the guest wrote to its exit file; empty when that is nothing. */
export function readExitWords({ exitFile }: Pick<MachinePaths, "exitFile">): string {
  return readBoundedFile(exitFile, exitBytes)?.toString("latin1").trim() ?? "";
}

/** Where QEMU finds `socketDir`. */
export const socketDirInside = "/machine";

export function machinePaths(paths: InstancePaths): MachinePaths {
  const dir = join(paths.dir, "machine");
  const socketDir = join(dir, "socket");
  return {
    dir,
    socketDir,
    controlSocket: join(socketDir, "control"),
    shellSocket: join(socketDir, "shell"),
    qmpSocket: join(socketDir, "qmp"),
    exitFile: join(dir, "exit"),
    startedFile: join(dir, "started.json"),
    keyFile: join(dir, "key.json"),
    volumesFile: join(dir, "volumes.json"),
    madeFile: join(dir, "made.json"),
  };
}

/** Of the shape of `KeyRecord`. */
export const keyVersion = 1;

export interface KeyRecord {
  readonly version: typeof keyVersion;
  /** As it goes over the wire, in base64; and as dropbear keeps it. */
  readonly publicBlob: string;
  readonly dropbear: string;
}

export interface Started {
  readonly startedMs: number;
}
