import { type Call, throwIfCancelled } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId, VolumeId } from "../../base/id.ts";
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
import { MemoryDisks } from "./disks.ts";

/** A pool that touches nothing: for tests of what is above storage. Its paths do not exist. */
export class MemoryPool implements Pool {
  readonly name = "memory";
  readonly #roots = new Map<InstanceId, { attached: boolean }>();
  readonly #volumes = new Map<VolumeId, { attached: boolean; sizeBytes?: number }>();

  readonly disks: DiskFacet = new MemoryDisks();
  readonly clone: CloneFacet = {
    cloneVolume: async (source, target, call) => {
      throwIfCancelled(call);
      const volume = this.#volumes.get(source);
      if (volume === undefined) throw new Fault("not-found", `there is no volume ${source}`);
      if (!this.#volumes.has(target)) this.#volumes.set(target, { ...volume, attached: true });
    },
  };

  async probe(): Promise<Probe> {
    return { ok: true, detail: "in memory" };
  }

  async attachRoot(root: RootSpec, call: Call): Promise<Root> {
    throwIfCancelled(call);
    this.#roots.set(root.id, { attached: true });
    if (root.kind === "directory") return { kind: "directory", path: `/memory/roots/${root.id}` };
    const { kind, layers } = root;
    return root.readOnly ? { kind, layers } : { kind, layers, writable: `/memory/roots/${root.id}/writable.ext4` };
  }

  async detachRoot(id: InstanceId): Promise<void> {
    const root = this.#roots.get(id);
    if (root !== undefined) root.attached = false;
  }

  async removeRoot(id: InstanceId): Promise<void> {
    this.#roots.delete(id);
  }

  async attachVolume(spec: VolumeSpec, call: Call): Promise<AttachedVolume> {
    throwIfCancelled(call);
    const volume = this.#volumes.get(spec.id) ?? { attached: true, ...sizeOf(spec) };
    if (volume.sizeBytes !== undefined && spec.sizeBytes !== undefined) {
      if (spec.sizeBytes < volume.sizeBytes) throw new Fault("precondition", `volume ${spec.id} cannot shrink`);
      volume.sizeBytes = spec.sizeBytes;
    }
    volume.attached = true;
    this.#volumes.set(spec.id, volume);
    return { path: volumePath(spec.id), quota: volume.sizeBytes !== undefined };
  }

  async detachVolume(id: VolumeId): Promise<void> {
    const volume = this.#volumes.get(id);
    if (volume !== undefined) volume.attached = false;
  }

  async removeVolume(id: VolumeId): Promise<void> {
    this.#volumes.delete(id);
  }

  async list(): Promise<PoolFacts> {
    return {
      roots: [...this.#roots].map(([id, { attached }]) => ({ id, attached })),
      volumes: [...this.#volumes].map(([id, volume]) => ({ id, path: volumePath(id), ...volume })),
    };
  }
}

function sizeOf(spec: VolumeSpec): { sizeBytes?: number } {
  return spec.sizeBytes === undefined ? {} : { sizeBytes: spec.sizeBytes };
}

function volumePath(id: VolumeId): string {
  return `/memory/volumes/${id}`;
}
