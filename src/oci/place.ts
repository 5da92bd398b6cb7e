import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../base/fault.ts";
import { type Handover, openLockFile } from "../host/handover.ts";
import { hostFault } from "../host/errno.ts";

/**
 * Where a runtime keeps its containers: each engine in a directory of its own beneath `--root`, one directory for each
 * container. Which of them has the id says which engine owns it; there is no other record, so none can be wrong.
 */
export const engineNames = ["crun", "runc", "microvm"] as const;
export type EngineName = (typeof engineNames)[number];

export interface Place {
  readonly root: string;
}

export function defaultRoot(): string {
  if (process.getuid?.() === 0) return "/run/croft-oci";
  return join(process.env["XDG_RUNTIME_DIR"] ?? `/run/user/${process.getuid?.()}`, "croft-oci");
}

export function engineRoot({ root }: Place, engine: EngineName): string {
  return join(root, engine);
}

/** As runc has them; the id becomes the name of a directory and of a control group. */
export function checkId(id: string): void {
  if (!/^[\w+.-]+$/.test(id) || id === "." || id === ".." || id.startsWith("-") || id.length > 255) {
    throw new Fault("invalid", `container id ${JSON.stringify(id)}: expected letters, digits and any of _ + - .`);
  }
}

/** The engine that has this container, also half-made; undefined when none has. */
export function ownerOf(place: Place, id: string): EngineName | undefined {
  checkId(id);
  return engineNames.find((engine) => existsSync(join(place.root, engine, id)));
}

/** Like `ownerOf`, and `not-found` in the words that callers of runc look for. */
export function requireOwner(place: Place, id: string): EngineName {
  const owner = ownerOf(place, id);
  if (owner === undefined) throw new Fault("not-found", `container "${id}" does not exist`);
  return owner;
}

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
 * Makes the name ours until this process ends, also when it has become another program by then: of two copies that
 * create the same container at the same time one is refused, whichever engines they chose. Nothing has to be cleaned up
 * after a death, as the lock is the kernel's.
 */
export function claim(place: Place, id: string, handover: Handover): void {
  checkId(id);
  const taken = (): Fault => new Fault("already-exists", `container with id "${id}" already exists`);
  try {
    mkdirSync(place.root, { recursive: true, mode: 0o700 });
    const fd = openLockFile(join(place.root, ".lock"));
    if (!handover.lockByte(fd, byteOf(id))) throw taken();
  } catch (error) {
    throw hostFault(error, `claim the id ${id} beneath ${place.root}`);
  }
  if (ownerOf(place, id) !== undefined) throw taken();
}

/** Which byte of the lock file stands for the id: FNV-1a, so that two ids in a billion share one. */
function byteOf(id: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(id)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffff_ffff_ffff_ffffn;
  return hash >> 2n;
}
