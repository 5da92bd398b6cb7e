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
import type { AttachedVolume, CloneFacet, Pool, PoolFacts, Root, RootSpec, VolumeSpec } from "../contract.ts";
import { diskObstacle } from "./disk.ts";
import { type Places, placesIn } from "./place.ts";
import { Roots } from "./root.ts";
import { Volumes } from "./volume.ts";

/** Roots as overlays and volumes as directories or disks, on whatever file system the home is on. See `place.ts`. */
export class OverlayPool implements Pool {
  readonly name = "overlay";
  readonly clone: CloneFacet;
  readonly #places: Places;
  readonly #roots: Roots;
  readonly #volumes: Volumes;

  constructor(home: Home) {
    this.#places = placesIn(home);
    // Images hold files that are setuid and owned by all sorts of users: nobody but root may walk in.
    mkdirSync(this.#places.lib, { recursive: true, mode: 0o700 });
    this.#roots = new Roots(this.#places);
    this.#volumes = new Volumes(this.#places);
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
    return this.#roots.attach(root, call);
  }

  detachRoot(id: InstanceId): Promise<void> {
    return this.#roots.detach(id);
  }

  removeRoot(id: InstanceId): Promise<void> {
    return this.#roots.remove(id);
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
    return { roots: this.#roots.list(), volumes: await this.#volumes.list() };
  }
}
