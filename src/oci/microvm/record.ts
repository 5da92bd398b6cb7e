import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostFault } from "../../host/errno.ts";
import type { ProgramLaunch } from "../../instance/contract.ts";
import type { GuestSettings } from "../../instance/guest.ts";
import type { Json } from "../config/shape.ts";
import type { Place } from "../place.ts";

/** What a microVM has beneath the runtime's root, besides crun's own record of the container around it. */
export interface MachineFiles {
  readonly directory: string;
  /** What the container sees of it. */
  readonly shared: string;
  readonly launch: string;
  /** The user that QEMU runs as. */
  readonly uid: number;
}

/** Like those of the engine, far from users of the host and of its user namespaces; its own for each container. */
const firstUid = 0x7000_0000;

export function machineFiles({ root }: Place, id: string): MachineFiles {
  const directory = join(root, "machine", id);
  return {
    directory,
    shared: join(directory, "shared"),
    launch: join(directory, "launch.json"),
    uid: firstUid + (hashOf(id) & 0xff_ffff),
  };
}

function hashOf(id: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(id)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

export function makeMachineFiles(files: MachineFiles): void {
  mkdirSync(files.directory, { recursive: true, mode: 0o700 });
}

/** What was launched, and how. */
interface LaunchRecord {
  readonly launch: ProgramLaunch;
  /** Of the guest but for its network, which is known when it starts. */
  readonly settings: Omit<GuestSettings, "network">;
  readonly cgroup: string;
  /** What the host's configuration said of microVMs then: it may say something else by the start. */
  readonly host: Json;
  /** The caller's hooks that run when the program runs. */
  readonly poststart: readonly unknown[];
  /** The network namespace that is the caller's own; absent: it is the container's. */
  readonly network?: string;
}

export function writeRecord(files: MachineFiles, record: LaunchRecord): void {
  writeFileSync(`${files.launch}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${files.launch}.new`, files.launch);
}

export function readRecord(files: MachineFiles): LaunchRecord {
  try {
    return JSON.parse(readFileSync(files.launch, "utf8")) as LaunchRecord;
  } catch (error) {
    throw hostFault(error, `read ${files.launch}`);
  }
}

export function writeLaunch(files: MachineFiles, launch: ProgramLaunch): void {
  writeRecord(files, { ...readRecord(files), launch });
}
