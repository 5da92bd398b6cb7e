import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import type { Digest, InstanceId } from "../../base/id.ts";
import { hostFault } from "../../host/errno.ts";
import { removeTree } from "../../host/file.ts";
import { isMountPoint, mountErofs, mountOverlay } from "../../host/mount.ts";
import type { PoolFacts, Root, RootSpec } from "../contract.ts";
import { endMount, removeIfThere } from "./mount-point.ts";
import { type Places, idsIn, nameOf, namesIn, removedAt } from "./place.ts";

/**
 * The roots of instances: an overlay of layers, each mounted once for all roots, and a writable directory of its own.
 *
 * A root's need of layers is written down before they are mounted and struck out after its overlay is gone, so at every
 * moment, and after a crash at any moment, the layers that no root needs are those that may be unmounted. Both files and
 * mounts are in memory: attaching costs no process and no waiting for a disk, so its calls are made on the spot.
 */
export class Roots {
  readonly #places: Places;
  /** What the files `run/pool/roots/*.json` say, read once. */
  #needs: Map<InstanceId, readonly Digest[]> | undefined;
  #swept = false;

  constructor(places: Places) {
    this.#places = places;
  }

  /**
   * A read-only root gets a writable part too: the engine has to make its mount points before it seals the root, and a
   * scratch image has none.
   */
  async attach(spec: RootSpec, call: Call): Promise<Root> {
    throwIfCancelled(call);
    const merged = join(this.#places.runRoots, nameOf(spec.id));
    if (isMountPoint(merged)) return { kind: "directory", path: merged };
    const own = join(this.#places.libRoots, nameOf(spec.id));
    const isNew = statSync(own, { throwIfNoEntry: false }) === undefined;
    try {
      const lowers = await this.#mountLayers(spec);
      const writable = makeWritable(own, lowers[0] ?? own);
      mkdirSync(merged, { recursive: true, mode: 0o700 });
      // Asked for twice at once, the other may have been here meanwhile.
      if (!isMountPoint(merged)) await mountOverlay({ lowers, ...writable, target: merged });
      return { kind: "directory", path: merged };
    } catch (error) {
      await (isNew ? this.remove(spec.id) : this.detach(spec.id)).catch(() => {});
      throw hostFault(error, `attach the root of ${spec.id}`);
    }
  }

  detach(id: InstanceId): Promise<void> {
    return this.#end(id, "kept");
  }

  async remove(id: InstanceId): Promise<void> {
    const own = join(this.#places.libRoots, nameOf(id));
    await this.#end(id, "abandoned");
    await removeTree(removedAt(own));
    // Renamed first: a half-deleted root must never be attached again as if it were whole.
    removeIfThere(() => renameSync(own, removedAt(own)));
    await removeTree(removedAt(own));
  }

  /** Ends the directory and deletes what was written to it; the instance's folder stays. Costs nothing where none is. */
  async drop(id: InstanceId): Promise<void> {
    const own = join(this.#places.libRoots, nameOf(id));
    if (isMountPoint(join(this.#places.runRoots, nameOf(id)))) await this.#end(id, "abandoned");
    for (const name of ["upper", "upper~new", "work"]) await removeTree(join(own, name));
  }

  list(): PoolFacts["roots"] {
    const ids = idsIn([this.#places.libRoots, this.#places.runRoots]) as InstanceId[];
    return ids.map((id) => ({ id, attached: isMountPoint(join(this.#places.runRoots, id)) }));
  }

  async #end(id: InstanceId, fate: "kept" | "abandoned"): Promise<void> {
    await endMount(join(this.#places.runRoots, nameOf(id)), fate);
    const released = this.#strike(id);
    // The first time all are looked at: a crash of the last daemon may have left some between two steps.
    const candidates = this.#swept ? released : namesIn(this.#places.runLayers);
    this.#swept = true;
    for (const name of candidates) {
      // Asked anew for each, as another root may have come while the last one ended.
      if (!this.#isNeeded(name)) await endMount(join(this.#places.runLayers, name), "kept");
    }
  }

  /** Directories that show the layers, the uppermost first; at least one. */
  async #mountLayers(spec: RootSpec): Promise<string[]> {
    this.#need(spec);
    const targets: string[] = [];
    for (const layer of spec.layers.toReversed()) {
      const target = join(this.#places.runLayers, layer.digest);
      // Looked at and mounted in one go, so that two roots never mount it twice.
      if (!isMountPoint(target)) {
        mkdirSync(target, { recursive: true, mode: 0o755 });
        await mountErofs(layer.path, target);
      }
      targets.push(target);
    }
    if (targets.length > 0) return targets;
    mkdirSync(this.#places.emptyLayer, { recursive: true, mode: 0o755 });
    return [this.#places.emptyLayer];
  }

  #need(spec: RootSpec): void {
    const digests = spec.layers.map((layer) => layer.digest);
    mkdirSync(this.#places.runRoots, { recursive: true, mode: 0o700 });
    const path = this.#needFile(spec.id);
    writeFileSync(`${path}~new`, JSON.stringify(digests));
    renameSync(`${path}~new`, path);
    this.#known().set(spec.id, digests);
  }

  /** Returns the layers that the root needed until now. */
  #strike(id: InstanceId): readonly Digest[] {
    const released = this.#known().get(id) ?? [];
    this.#known().delete(id);
    removeIfThere(() => unlinkSync(this.#needFile(id)));
    return released;
  }

  #isNeeded(layer: string): boolean {
    return [...this.#known().values()].some((digests) => digests.some((digest) => digest === layer));
  }

  #known(): Map<InstanceId, readonly Digest[]> {
    if (this.#needs !== undefined) return this.#needs;
    const needs = new Map<InstanceId, readonly Digest[]>();
    for (const name of namesIn(this.#places.runRoots)) {
      if (!name.endsWith(".json")) continue;
      const text = readFileSync(join(this.#places.runRoots, name), "utf8");
      needs.set(name.slice(0, -".json".length) as InstanceId, JSON.parse(text) as Digest[]);
    }
    this.#needs = needs;
    return needs;
  }

  #needFile(id: InstanceId): string {
    return join(this.#places.runRoots, `${nameOf(id)}.json`);
  }
}

/** The two directories that an overlay writes to. The merged root has the owner and mode of `upper`: the image's. */
function makeWritable(own: string, highest: string): { readonly upper: string; readonly work: string } {
  const upper = join(own, "upper");
  const work = join(own, "work");
  mkdirSync(work, { recursive: true, mode: 0o700 });
  const facts = statSync(upper, { throwIfNoEntry: false });
  if (facts === undefined) {
    const { uid, gid, mode } = statSync(highest);
    const unfinished = join(own, "upper~new");
    mkdirSync(unfinished, { recursive: true });
    chownSync(unfinished, uid, gid);
    chmodSync(unfinished, mode & 0o7777);
    renameSync(unfinished, upper);
  }
  return { upper, work };
}
