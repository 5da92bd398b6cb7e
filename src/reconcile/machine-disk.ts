import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { DiskImage } from "../image/disk/contract.ts";
import type { MachineDisk } from "../instance/contract.ts";
import type { DesiredInstance } from "../stack/plan/step.ts";
import { machineOf } from "./machine-launch.ts";
import type { Parts } from "./parts.ts";
import type { Sight } from "./sight.ts";

/** The disks of a machine, each a child of what it begins as, made once and then its own; in boot order. */
export async function attachDisks(
  instance: DesiredInstance,
  ownerUid: number | undefined,
  { pool, diskImages }: Pick<Parts, "pool" | "diskImages">,
  sight: Sight,
  call: Call,
): Promise<readonly MachineDisk[]> {
  const { disks: drives } = pool;
  if (drives === undefined) throw new Fault("unsupported", `pool ${pool.name} has no disks for machines`);
  const { id, section } = instance;
  const status = sight.instances.get(id)?.status;
  const isUp = status === "running" || status === "frozen";
  const owner = ownerUid === undefined ? {} : { ownerUid };
  const attached: MachineDisk[] = [];
  for (const { name, from, sizeBytes } of machineOf(section).disks) {
    const image = from.kind === "blank" ? undefined : await imageOf(instance, from.image, diskImages, call);
    if (from.kind === "iso") {
      if (image === undefined) throw new Fault("bug", `drive ${name} of ${id} has nothing in it`);
      const { path, format } = image;
      attached.push({ name, disk: { path, format, backing: [] }, readOnly: true, cdrom: true });
      continue;
    }
    const base = image === undefined ? {} : { base: { path: image.path, format: image.format } };
    const isOpen = isUp && sight.disks.get(id)?.has(name) === true;
    // Of a disk that is open, its machine changes the size.
    const size = sizeBytes === undefined || isOpen ? {} : { sizeBytes };
    const disk = await drives.attachDisk({ id, name, ...base, ...size, ...owner }, call);
    sight.sawDisk(id, name);
    const wanted = sizeBytes === undefined ? {} : { sizeBytes };
    attached.push({ name, disk, readOnly: false, cdrom: false, ...wanted });
  }
  return attached;
}

async function imageOf(
  instance: DesiredInstance,
  name: string,
  images: Parts["diskImages"],
  call: Call,
): Promise<DiskImage> {
  const digest = instance.diskImages?.[name];
  if (digest === undefined) throw new Fault("bug", `${instance.id} has no digest of ${name}`);
  return await images.get(digest, call);
}
