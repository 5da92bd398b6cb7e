import { Fault } from "../base/fault.ts";
import { cString, exists, openDoor } from "../host/door.ts";

/**
 * Where a runtime keeps its containers: each engine in a directory of its own beneath `--root`, one directory for each
 * container. Which of them has the id says which engine owns it; there is no other record, so none can be wrong.
 */
export const engineNames = ["crun", "runc", "microvm"] as const;
export type EngineName = (typeof engineNames)[number];

export interface Place {
  readonly root: string;
}

const AT_FDCWD = -100n;
const W_OK = 2n;

/**
 * Whether we are root, and no other user who is called so in a user namespace, as in rootless podman: to that one the
 * host's /run is read-only. Asked by one system call, as it is on the way of every call.
 */
export function isHostRoot(): boolean {
  if (process.getuid?.() !== 0) return false;
  const door = openDoor();
  return door.call("faccessat", AT_FDCWD, door.address(cString("/run")), W_OK) === 0n;
}

export function defaultRoot(): string {
  if (isHostRoot()) return "/run/croft-oci";
  return `${process.env["XDG_RUNTIME_DIR"] ?? `/run/user/${process.getuid?.()}`}/croft-oci`;
}

export function engineRoot({ root }: Place, engine: EngineName): string {
  return `${root}/${engine}`;
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
  return engineNames.find((engine) => exists(`${place.root}/${engine}/${id}`));
}

/** Like `ownerOf`, and `not-found` in the words that callers of runc look for. */
export function requireOwner(place: Place, id: string): EngineName {
  const owner = ownerOf(place, id);
  if (owner === undefined) throw new Fault("not-found", `container "${id}" does not exist`);
  return owner;
}
