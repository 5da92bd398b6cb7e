import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import type { Home } from "../../base/home.ts";
import type { InstanceId, VolumeId } from "../../base/id.ts";
import { removeTree } from "../../host/file.ts";
import { mountOverlay, unmount } from "../../host/mount.ts";
import type {
  AttachedVolume,
  CloneFacet,
  DiskFacet,
  Pool,
  PoolFacts,
  Root,
  RootSpec,
  VolumeSpec,
} from "../contract.ts";
import { BlockRoots } from "./block.ts";
import { diskObstacle } from "./disk.ts";
import { MachineDisks } from "./machine-disk.ts";
import { type Places, placesIn } from "./place.ts";
import { Roots } from "./root.ts";
import { Turns } from "./turns.ts";
import { Volumes } from "./volume.ts";

/** Roots as overlays and volumes as directories or disks, on whatever file system the home is on. See `place.ts`. */
export class OverlayPool implements Pool {
  readonly name = "overlay";
  readonly clone: CloneFacet;
  readonly disks: DiskFacet;
  readonly #places: Places;
  readonly #roots: Roots;
  readonly #blocks: BlockRoots;
  readonly #turns = new Turns<InstanceId>();
  readonly #volumes: Volumes;

  constructor(home: Home) {
    this.#places = placesIn(home);
    // Images hold files that are setuid and owned by all sorts of users: nobody but root may walk in.
    mkdirSync(this.#places.lib, { recursive: true, mode: 0o700 });
    this.#roots = new Roots(this.#places);
    this.#blocks = new BlockRoots(this.#places);
    this.#volumes = new Volumes(this.#places);
    this.disks = new MachineDisks(this.#places);
    this.clone = { cloneVolume: (source, target, call) => this.#volumes.clone(source, target, call) };
  }

  async probe(): Promise<Probe> {
    mkdirSync(this.#places.lib, { recursive: true, mode: 0o700 });
    const trial = mkdtempSync(join(this.#places.lib, "probe-"));
    try {
      const [lower, upper, work, target] = ["lower", "upper", "work", "target"].map((name) => join(trial, name));
      if (!lower || !upper || !work || !target) throw new Fault("bug", "four names are four names");
      for (const directory of [lower, upper, work, target]) mkdirSync(directory);
      await mountOverlay({ lowers: [lower], upper, work, target });
      writeFileSync(join(target, "written"), "");
      await unmount(target, { detach: true });
      const obstacle = diskObstacle();
      const quota = obstacle === undefined ? "volumes with quota" : `no quota for volumes: ${obstacle}`;
      return { ok: true, detail: `overlay on Linux ${release()}, ${quota}` };
    } catch (error) {
      const detail = Fault.from(error, "mount an overlay").message;
      const mend = `run as root, and keep ${this.#places.lib} on ext4, xfs or btrfs`;
      return { ok: false, detail, mend };
    } finally {
      await unmount(join(trial, "target"), { detach: true });
      await removeTree(trial);
    }
  }

  attachRoot(root: RootSpec, call: Call): Promise<Root> {
    if (root.kind === "directory") return this.#roots.attach(root, call);
    return this.#turns.run(root.id, `attach the root of ${root.id}`, async () => {
      const attached = await this.#blocks.attach(root, call);
      await this.#roots.drop(root.id);
      return attached;
    });
  }

  detachRoot(id: InstanceId): Promise<void> {
    return this.#turns.run(id, `detach the root of ${id}`, async () => {
      await this.#blocks.detach(id);
      await this.#roots.detach(id);
    });
  }

  removeRoot(id: InstanceId): Promise<void> {
    return this.#turns.run(id, `remove the root of ${id}`, async () => {
      this.#blocks.abandon(id);
      await this.#roots.remove(id);
    });
  }

  attachVolume(volume: VolumeSpec, call: Call): Promise<AttachedVolume> {
    return this.#volumes.attach(volume, call);
  }

  detachVolume(id: VolumeId): Promise<void> {
    return this.#volumes.detach(id);
  }

  removeVolume(id: VolumeId): Promise<void> {
    return this.#volumes.remove(id);
  }

  async list(): Promise<PoolFacts> {
    const directories = new Map(this.#roots.list().map((root) => [root.id, root]));
    const blocks = new Map(this.#blocks.list().map((root) => [root.id, root]));
    const ids = [...new Set([...directories.keys(), ...blocks.keys()])].sort();
    return {
      roots: ids.map((id) => this.#rootFacts(id, directories.get(id), blocks.get(id))),
      volumes: await this.#volumes.list(),
    };
  }

  /** An instance has one root to those above, in whatever way it is attached. */
  #rootFacts(
    id: InstanceId,
    ...known: readonly (PoolFacts["roots"][number] | undefined)[]
  ): PoolFacts["roots"][number] {
    const usedBytes = this.#blocks.usedBytes(id);
    const attached = known.some((root) => root?.attached === true);
    return usedBytes === undefined ? { id, attached } : { id, attached, usedBytes };
  }
}
