import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import type { AttachedDisk, DiskFacet, DiskFacts, DiskKey, DiskSpec } from "../contract.ts";

/** What every base has here, as no file tells otherwise. */
export const memoryBaseBytes = 2 ** 30;

/** Disks that are not there, with the sizes and refusals of real ones. */
export class MemoryDisks implements DiskFacet {
  readonly #disks = new Map<string, DiskFacts>();

  async attachDisk(spec: DiskSpec, call: Call): Promise<AttachedDisk> {
    throwIfCancelled(call);
    const { id, name, base } = spec;
    const known = this.#disks.get(keyOf(spec));
    const leastBytes = known?.sizeBytes ?? (base === undefined ? 0 : memoryBaseBytes);
    const sizeBytes = spec.sizeBytes ?? leastBytes;
    if (sizeBytes === 0) throw new Fault("invalid", `disk ${name} of ${id} is blank and needs a size`);
    if (sizeBytes < leastBytes) throw new Fault("precondition", `disk ${name} of ${id} cannot be so small`);
    const backing = known?.backing ?? (base === undefined ? [] : [base.path]);
    this.#disks.set(keyOf(spec), { id, name, sizeBytes, usedBytes: 0, backing });
    return { path: `/memory/disks/${id}/${name}.qcow2`, format: "qcow2", backing };
  }

  async removeDisk(id: InstanceId, name: string): Promise<void> {
    this.#disks.delete(keyOf({ id, name }));
  }

  async listDisks(): Promise<readonly DiskFacts[]> {
    return [...this.#disks.values()];
  }

  async cloneDisk(source: DiskKey, target: DiskKey, call: Call): Promise<void> {
    throwIfCancelled(call);
    const known = this.#known(source);
    const { id, name } = target;
    if (!this.#disks.has(keyOf(target))) this.#disks.set(keyOf(target), { ...known, id, name });
  }

  async exportDisk(source: DiskKey, _path: string, call: Call): Promise<void> {
    throwIfCancelled(call);
    this.#known(source);
  }

  #known(key: DiskKey): DiskFacts {
    const disk = this.#disks.get(keyOf(key));
    if (disk === undefined) throw new Fault("not-found", `there is no disk ${key.name} of ${key.id}`);
    return disk;
  }
}

function keyOf({ id, name }: DiskKey): string {
  return `${id}/${name}`;
}
