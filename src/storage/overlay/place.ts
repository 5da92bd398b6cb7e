import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { Home } from "../../base/home.ts";
import type { InstanceId, VolumeId } from "../../base/id.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import type { DiskKey } from "../contract.ts";

/**
 * Where everything of this driver is, derived from the ids alone.
 *
 *     lib/pool/roots/<instance>/upper, work      the writable part of a directory root
 *                               writable.ext4    the same of a block root, and
 *                               writable.durable that it is known to have reached the disk
 *     lib/pool/blank-<version>.ext4              what every such file begins as
 *     lib/pool/volumes/<volume>/volume.json      what it was made as, and
 *                               data/            its content, or
 *                               disk.ext4        a file system that holds it, which is the quota
 *     lib/pool/disks/<instance>/<disk>/disk.qcow2 a machine's disk
 *                                      disk.json  the files that it reads from, nearest first
 *     lib/pool/frozen/<random>.qcow2             what a disk was when it was cloned, read by both since then
 *     run/pool/layers/<digest>/                  a layer, mounted once for all roots
 *     run/pool/roots/<instance>/                 the merged root
 *     run/pool/roots/<instance>.json             the layers that root needs
 *     run/pool/blocks/<instance>                 that its block root is attached, and since which boot
 *     run/pool/volumes/<volume>/                 the volume, as it is handed out
 *
 * A name that ends with `~new` or `~removed` is a folder that is being made or deleted: what has its plain name is whole.
 */
export interface Places {
  readonly lib: string;
  readonly libRoots: string;
  readonly libVolumes: string;
  readonly libDisks: string;
  readonly libFrozen: string;
  readonly runLayers: string;
  readonly runRoots: string;
  readonly runBlocks: string;
  readonly runVolumes: string;
  /** The lowest layer of an image that has none. */
  readonly emptyLayer: string;
}

export function placesIn(home: Home): Places {
  const lib = join(home.libDir, "pool");
  const run = join(home.runDir, "pool");
  return {
    lib,
    libRoots: join(lib, "roots"),
    libVolumes: join(lib, "volumes"),
    libDisks: join(lib, "disks"),
    libFrozen: join(lib, "frozen"),
    runLayers: join(run, "layers"),
    runRoots: join(run, "roots"),
    runBlocks: join(run, "blocks"),
    runVolumes: join(run, "volumes"),
    emptyLayer: join(run, "empty"),
  };
}

const beingMade = "~new";
const beingRemoved = "~removed";

export function madeAt(path: string): string {
  return `${path}${beingMade}`;
}

export function removedAt(path: string): string {
  return `${path}${beingRemoved}`;
}

/** The ids of everything in these folders, whatever state it is in; a name that is no id of ours is not. */
export function idsIn(folders: readonly string[]): string[] {
  const names = folders.flatMap((folder) => namesIn(folder));
  const ids = names.map((name) => name.replace(/(?:\.json)?(?:~new|~removed)?$/, ""));
  return [...new Set(ids)].filter((id) => idPattern.test(id)).sort();
}

const idPattern = /^[a-z0-9][a-z0-9.-]{0,127}$/;

/** An id as the name of a folder. Ids are checked where they are made; here a wrong one could leave the pool. */
export function nameOf(id: InstanceId | VolumeId | DiskKey["name"]): string {
  if (!idPattern.test(id)) throw new Fault("bug", `"${id}" is not the id of a root, volume or disk`);
  return id;
}

/** What is in a folder; nothing when there is no such folder yet. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw hostFault(error, `list ${folder}`);
  }
}
