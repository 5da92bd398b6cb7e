import { closeSync } from "node:fs";
import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import { openTap } from "../../../host/tap.ts";
import type { MachineDisk, MachineLaunch } from "../../contract.ts";
import type { Qmp } from "../qmp.ts";
import { diskDevices, diskId, diskNode, diskNodes, nicDevice, nicId } from "./arguments.ts";
import { closeAll, openChain } from "./chain.ts";
import { freeSlot, type Shape, type ShapeDisk, type ShapeNic } from "./shape.ts";

/** How long the guest may take to let go of a device. */
const unplugTimeoutMs = 15_000;

/**
 * Makes the disks and nics of a running machine those of the launch, and tells each step as the shape that is so now:
 * whatever happens next, what was plugged is known.
 */
export async function replugMachine(
  launch: MachineLaunch,
  before: Shape,
  qmp: Qmp,
  told: (shape: Shape) => void,
  call: Call,
): Promise<void> {
  let shape = before;
  const now = (next: Shape): void => {
    shape = next;
    told(next);
  };
  const taps = launch.attachment.kind === "tap" ? launch.attachment.taps : [];
  for (const disk of shape.disks) {
    if (disk.empty === true || launch.disks.some(({ name }) => name === disk.name)) continue;
    const stays = await removeDisk(launch, disk, qmp, call);
    now({ ...shape, disks: shape.disks.flatMap((known) => (known === disk ? stays : [known])) });
  }
  for (const nic of shape.nics) {
    if (taps.some(({ mac }) => mac === nic.mac)) continue;
    await removeNic(launch, nic, qmp, call);
    now({ ...shape, nics: shape.nics.filter((known) => known !== nic) });
  }
  for (const disk of launch.disks) {
    const before = shape.disks.find(({ name }) => name === disk.name);
    if (before !== undefined && before.empty !== true) continue;
    const added = await addDisk(launch, disk, before, shape, qmp, call);
    now({ ...shape, disks: [...shape.disks.filter((known) => known !== before), added] });
  }
  for (const { mac, name } of taps) {
    if (shape.nics.some((nic) => nic.mac === mac)) continue;
    const nic = { mac, slot: freeSlot(shape, `a nic of ${launch.id}`) };
    await addNic(nic, name, qmp, call);
    now({ ...shape, nics: [...shape.nics, nic] });
  }
  await growDisks(launch, qmp, call);
}

async function addDisk(
  launch: MachineLaunch,
  disk: MachineDisk,
  emptyDrive: ShapeDisk | undefined,
  shape: Shape,
  qmp: Qmp,
  call: Call,
): Promise<ShapeDisk> {
  const added = emptyDrive === undefined ? placeOf(launch, disk, shape) : filled(emptyDrive);
  const files = openChain(disk);
  const nodes: string[] = [];
  const fdsets: number[] = [];
  try {
    const chain = [];
    for (const { fd, format } of files) {
      const { "fdset-id": fdset } = (await qmp.executeWithDescriptor("add-fd", {}, fd, call)) as { "fdset-id": number };
      fdsets.push(fdset);
      chain.push({ fdset, format });
    }
    for (const node of diskNodes(added, { files: chain })) {
      await qmp.execute("blockdev-add", node, call);
      nodes.push((node as { readonly "node-name": string })["node-name"]);
    }
    if (emptyDrive !== undefined) {
      const medium = { id: diskId(added.name), "node-name": diskNode(added.name) };
      await qmp.execute("blockdev-insert-medium", medium, call);
      await qmp.execute("blockdev-close-tray", { id: diskId(added.name) }, call);
      return added;
    }
    for (const device of diskDevices(added, shape.queues)) await qmp.execute("device_add", device, call);
    return added;
  } catch (error) {
    // Of a drive and its controller only one may be there.
    if (added.bus === "scsi") await qmp.execute("device_del", { id: diskId(added.name) }, call).catch(() => {});
    for (const node of nodes.toReversed())
      await qmp.execute("blockdev-del", { "node-name": node }, call).catch(() => {});
    for (const fdset of fdsets) await qmp.execute("remove-fd", { "fdset-id": fdset }, call).catch(() => {});
    throw error;
  } finally {
    closeAll(files);
  }
}

/** Returns what stays of it: the drive of a CD-ROM that was there from the start. */
async function removeDisk(launch: MachineLaunch, disk: ShapeDisk, qmp: Qmp, call: Call): Promise<readonly ShapeDisk[]> {
  const staying = disk.cdrom && disk.bus === undefined;
  if (staying) {
    await qmp.execute("blockdev-open-tray", { id: diskId(disk.name), force: true }, call);
    await qmp.execute("blockdev-remove-medium", { id: diskId(disk.name) }, call);
  } else await unplug(diskId(disk.name), `take disk ${disk.name} out of ${launch.id}`, qmp, call);
  const nodes = (await qmp.execute("query-named-block-nodes", { flat: true }, call)) as readonly {
    readonly "node-name": string;
  }[];
  const names = new Set(nodes.map((node) => node["node-name"]));
  // Nearest first: a node that another one reads from cannot go.
  for (let index = 0; names.has(diskNode(disk.name, index)); index += 1) {
    for (const name of [diskNode(disk.name, index), `${diskNode(disk.name, index)}-file`]) {
      if (names.has(name)) await qmp.execute("blockdev-del", { "node-name": name }, call);
    }
  }
  return staying ? [{ ...disk, empty: true }] : [];
}

function placeOf(launch: MachineLaunch, { name, cdrom, readOnly }: MachineDisk, shape: Shape): ShapeDisk {
  const slot = freeSlot(shape, `disk ${name} of ${launch.id}`);
  return { name, cdrom, readOnly, slot, ...(cdrom ? { bus: "scsi" } : {}) };
}

function filled({ name, cdrom, readOnly, slot, bootIndex }: ShapeDisk): ShapeDisk {
  return { name, cdrom, readOnly, slot, ...(bootIndex === undefined ? {} : { bootIndex }) };
}

async function addNic(nic: ShapeNic, tap: string, qmp: Qmp, call: Call): Promise<void> {
  const fd = openTap(tap);
  try {
    await qmp.executeWithDescriptor("getfd", { fdname: nicId(nic) }, fd, call);
  } finally {
    closeSync(fd);
  }
  await qmp.execute("netdev_add", { type: "tap", id: nicId(nic), fd: nicId(nic) }, call);
  try {
    await qmp.execute("device_add", nicDevice(nic), call);
  } catch (error) {
    await qmp.execute("netdev_del", { id: nicId(nic) }, call).catch(() => {});
    throw error;
  }
}

async function removeNic(launch: MachineLaunch, nic: ShapeNic, qmp: Qmp, call: Call): Promise<void> {
  await unplug(`${nicId(nic)}-card`, `take nic ${nic.mac} out of ${launch.id}`, qmp, call);
  await qmp.execute("netdev_del", { id: nicId(nic) }, call);
}

/** Asks the guest to let go of a device, and waits until it did. */
async function unplug(device: string, what: string, qmp: Qmp, call: Call): Promise<void> {
  using bounded = withDeadline(call, unplugTimeoutMs, what);
  const events = qmp.events(bounded);
  try {
    await qmp.execute("device_del", { id: device }, call);
  } catch (error) {
    await events.return();
    if (isFault(error, "not-found")) return;
    // Asked already, and the guest takes its time.
    if (!isFault(error) || !/already in the process of unplug/.test(error.message)) throw error;
  }
  for await (const event of events) {
    if (event.event === "DEVICE_DELETED" && event.data["device"] === device) return;
    if (event.event === "DEVICE_UNPLUG_GUEST_ERROR" && event.data["device"] === device) break;
  }
  if (call.signal.aborted) throw new Fault("cancelled", `${what}: cancelled`);
  throw new Fault("precondition", `${what}: the guest does not let go of it`, {
    hint: "stop using it inside and try again, or restart the machine",
  });
}

async function growDisks(launch: MachineLaunch, qmp: Qmp, call: Call): Promise<void> {
  const nodes = (await qmp.execute("query-named-block-nodes", { flat: true }, call)) as readonly {
    readonly "node-name": string;
    readonly image: { readonly "virtual-size": number };
  }[];
  for (const { name, sizeBytes, readOnly, cdrom } of launch.disks) {
    if (sizeBytes === undefined || readOnly || cdrom) continue;
    const node = nodes.find((known) => known["node-name"] === diskNode(name));
    const wanted = Math.ceil(sizeBytes / 512) * 512;
    if (node === undefined || node.image["virtual-size"] >= wanted) continue;
    await qmp.execute("block_resize", { "node-name": diskNode(name), size: wanted }, call);
  }
}
