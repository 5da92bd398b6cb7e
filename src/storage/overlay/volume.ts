import { statSync } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import type { VolumeId } from "../../base/id.ts";
import { formatSize } from "../../base/unit.ts";
import { resolveBeneath } from "../../host/beneath.ts";
import { hostFault } from "../../host/errno.ts";
import { fileExists, removeTree, syncDirectory, writeFileAtomic } from "../../host/file.ts";
import { bind, isMountPoint } from "../../host/mount.ts";
import { run } from "../../host/process.ts";
import type { AttachedVolume, VolumeFacts, VolumeSpec } from "../contract.ts";
import { dataInDisk, diskObstacle, formatDisk, growDisk, mountDisk, spaceFaults, usedBytesOf } from "./disk.ts";
import { endMount } from "./mount-point.ts";
import { type Places, idsIn, madeAt, nameOf, removedAt } from "./place.ts";
import { Turns } from "./turns.ts";

/** What `volume.json` says. */
interface Made {
  /** Of the disk that holds the content; absent when it is a plain directory. */
  readonly sizeBytes?: number;
}

/**
 * Volumes: a directory, or a disk when a size was asked for and the host can enforce it.
 *
 * A volume is made under another name, filled with what the image has at its place, and renamed when it is whole: it is
 * seeded exactly once or not there, and nobody has written to what an interruption leaves behind. Both kinds are handed
 * out as a mount of their own, without devices.
 */
export class Volumes {
  readonly #places: Places;
  readonly #turns = new Turns<VolumeId>();

  constructor(places: Places) {
    this.#places = places;
  }

  attach(spec: VolumeSpec, call: Call): Promise<AttachedVolume> {
    return this.#turns.run(spec.id, `attach volume ${spec.id}`, async () => {
      throwIfCancelled(call);
      const { own, target } = this.#placesOf(spec.id);
      if (!(await fileExists(own))) await this.#make(spec, call);
      const made = await readMade(own);
      refuseToShrink(spec, made);
      await mountVolume(own, made, target);
      if (made.sizeBytes !== undefined && (spec.sizeBytes ?? 0) > made.sizeBytes) await grow(own, target, spec, call);
      return { path: contentOf(target, made), quota: made.sizeBytes !== undefined };
    });
  }

  detach(id: VolumeId): Promise<void> {
    return this.#turns.run(id, `detach volume ${id}`, () => endMount(this.#placesOf(id).target, "kept"));
  }

  remove(id: VolumeId): Promise<void> {
    return this.#turns.run(id, `remove volume ${id}`, async () => {
      const { own, target } = this.#placesOf(id);
      await endMount(target, "kept");
      await removeTree(removedAt(own));
      // Renamed first: half of a volume must never be attached again as if it were the whole.
      if (await fileExists(own)) await rename(own, removedAt(own));
      await removeTree(removedAt(own));
      await removeTree(madeAt(own));
      if (await fileExists(this.#places.libVolumes)) await syncDirectory(this.#places.libVolumes);
    });
  }

  async list(): Promise<VolumeFacts[]> {
    const ids = idsIn([this.#places.libVolumes, this.#places.runVolumes]) as VolumeId[];
    return await Promise.all(ids.map((id) => this.#facts(id)));
  }

  /** A copy of the content as it is, in a new volume of the same kind; blocks are shared where the file system can. */
  async clone(source: VolumeId, target: VolumeId, call: Call): Promise<void> {
    const origin = await this.#turns.run(source, `clone volume ${source}`, async () => {
      const { own, target } = this.#placesOf(source);
      if (!(await fileExists(own))) throw new Fault("not-found", `there is no volume ${source}`);
      const made = await readMade(own);
      await mountVolume(own, made, target);
      return { made, rootPath: contentOf(target, made) };
    });
    await this.#turns.run(target, `clone volume ${source} to ${target}`, async () => {
      if (await fileExists(this.#placesOf(target).own)) return;
      const { made, rootPath } = origin;
      await this.#make({ ...made, id: target, seed: { rootPath, path: "/" } }, call);
    });
  }

  /** After it the volume is there, whole, and mounted. */
  async #make(spec: VolumeSpec, call: Call): Promise<void> {
    const { own, target } = this.#placesOf(spec.id);
    const making = madeAt(own);
    const clear = async (): Promise<void> => {
      await endMount(target, "kept");
      await removeTree(making);
    };
    await clear();
    try {
      await mkdir(making, { recursive: true, mode: 0o700 });
      const made: Made =
        spec.sizeBytes === undefined || diskObstacle() !== undefined ? {} : { sizeBytes: spec.sizeBytes };
      await writeFileAtomic(join(making, "volume.json"), JSON.stringify(made));
      if (made.sizeBytes === undefined) await mkdir(join(making, "data"), { mode: 0o755 });
      else await formatDisk(join(making, "disk.ext4"), made.sizeBytes, call);
      await mountVolume(making, made, target);
      if (spec.seed !== undefined) await copySeed(spec.seed, contentOf(target, made), call);
      await rename(making, own);
      await syncDirectory(this.#places.libVolumes);
    } catch (error) {
      await clear().catch(() => {});
      throw error;
    }
  }

  async #facts(id: VolumeId): Promise<VolumeFacts> {
    const { own, target } = this.#placesOf(id);
    const made = await readMade(own).catch((error: unknown) => {
      if (isFault(error, "not-found")) return undefined;
      throw error;
    });
    if (made === undefined) return { id, attached: false, path: target };
    const attached = isMountPoint(target);
    const path = contentOf(target, made);
    if (made.sizeBytes === undefined) return { id, attached, path };
    const { sizeBytes } = made;
    return { id, attached, path, sizeBytes, ...(attached ? { usedBytes: usedBytesOf(target) } : {}) };
  }

  #placesOf(id: VolumeId): { readonly own: string; readonly target: string } {
    const name = nameOf(id);
    return { own: join(this.#places.libVolumes, name), target: join(this.#places.runVolumes, name) };
  }
}

function contentOf(target: string, made: Made): string {
  return made.sizeBytes === undefined ? target : join(target, dataInDisk);
}

async function readMade(own: string): Promise<Made> {
  const path = join(own, "volume.json");
  try {
    return JSON.parse(await readFile(path, "utf8")) as Made;
  } catch (error) {
    throw hostFault(error, `read ${path}`);
  }
}

async function mountVolume(own: string, made: Made, target: string): Promise<void> {
  await mkdir(target, { recursive: true, mode: 0o700 });
  if (isMountPoint(target)) return;
  if (made.sizeBytes === undefined) await bind(join(own, "data"), target, { nodev: true });
  else await mountDisk(join(own, "disk.ext4"), target);
}

function refuseToShrink(spec: VolumeSpec, made: Made): void {
  if (spec.sizeBytes === undefined || made.sizeBytes === undefined || spec.sizeBytes >= made.sizeBytes) return;
  const [from, to] = [formatSize(made.sizeBytes), formatSize(spec.sizeBytes)];
  throw new Fault("precondition", `volume ${spec.id} has ${from} and cannot shrink to ${to}`, {
    hint: "keep its size, or copy its content to a new volume",
  });
}

/** The new size is written down last, so that an interrupted growth is taken up again. */
async function grow(own: string, target: string, spec: VolumeSpec, call: Call): Promise<void> {
  const { sizeBytes } = spec;
  if (sizeBytes === undefined) return;
  await growDisk(join(own, "disk.ext4"), target, sizeBytes, call);
  await writeFileAtomic(join(own, "volume.json"), JSON.stringify({ sizeBytes } satisfies Made));
}

/**
 * Copies owner, mode and content of a directory of the instance's root. Its path is resolved beneath the root; within
 * it, `cp -a` copies links as links and devices as devices, and enters no other mount.
 */
async function copySeed(seed: { rootPath: string; path: string }, to: string, call: Call): Promise<void> {
  const from = seedDirectory(seed);
  if (from === undefined) return;
  const copy = ["cp", "--archive", "--one-file-system", "--no-target-directory", "--reflink=auto", from, to];
  const options = { attempted: `copy the image's ${seed.path}`, timeoutMs: 3_600_000, endsWithUs: true };
  await spaceFaults(run(copy, options, call));
  // The copy must be as durable as the name that will say it is whole.
  await run(["sync", "--file-system", to], { attempted: `write back ${to}`, timeoutMs: 600_000 }, call);
}

/** Undefined when the image has no directory there: then the volume starts empty. */
function seedDirectory({ rootPath, path }: { rootPath: string; path: string }): string | undefined {
  try {
    const from = join(rootPath, resolveBeneath(rootPath, path));
    return statSync(from).isDirectory() ? from : undefined;
  } catch (error) {
    if (isFault(error, "not-found")) return undefined;
    throw error;
  }
}
