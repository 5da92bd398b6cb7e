import { constants, mkdirSync, openSync, readdirSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { exists } from "../host/door.ts";
import { hostFault } from "../host/errno.ts";
import type { Handover } from "../host/handover.ts";
import { checkId, type EngineName, engineRoot, ownerOf, type Place } from "./place.ts";

export function idsOf(place: Place, engine: EngineName): readonly string[] {
  try {
    return readdirSync(engineRoot(place, engine), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
  } catch {
    return [];
  }
}

/**
 * Makes the name ours until this process ends, also when it has become another program by then. Nothing has to be cleaned
 * up after a death, as the lock is the kernel's. Returns false when another process has it.
 */
export function lockId(place: Place, id: string, handover: Handover): boolean {
  checkId(id);
  try {
    mkdirSync(place.root, { recursive: true, mode: 0o700 });
    return handover.lockByte(openLockFile(`${place.root}/.lock`), byteOf(id));
  } catch (error) {
    throw hostFault(error, `claim the id ${id} beneath ${place.root}`);
  }
}

/**
 * Before a container is made: of two copies that create the same one at the same time one is refused, whichever engines
 * they chose. What a microVM of that name left that was never made is taken away.
 */
export async function claim(place: Place, id: string, handover: Handover): Promise<void> {
  if (!lockId(place, id, handover) || ownerOf(place, id) !== undefined) {
    throw new Fault("already-exists", `container with id "${id}" already exists`);
  }
  if (!exists(`${place.root}/machine/${id}`)) return;
  const { clearMachine } = await import("./microvm/remove.ts");
  const { machineFiles } = await import("./microvm/record.ts");
  clearMachine(machineFiles(place, id), id);
}

/** Which byte of the lock file stands for the id: FNV-1a, so that two ids in a billion share one. */
function byteOf(id: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(id)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffff_ffff_ffff_ffffn;
  return hash >> 2n;
}

/** Opens the file whose bytes are locked, making it when it is not there. Never truncated, never removed. */
function openLockFile(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
}
