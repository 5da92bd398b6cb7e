import { statfsSync } from "node:fs";
import type { Call } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import { run } from "../../../host/process.ts";
import type { MachineLaunch } from "../../contract.ts";
import type { Qmp } from "../qmp.ts";
import { diskNode } from "./arguments.ts";
import { closeAll, openChain } from "./chain.ts";
import type { MachinePaths } from "./places.ts";

/** A file that a machine writes to and that can hold snapshots. */
export interface Layer {
  /** The disk's name; undefined for the firmware's variables. */
  readonly disk?: string;
  readonly node: string;
  readonly path: string;
}

/**
 * The files that make a snapshot of this machine, the one that holds saved memory first. `unsupported` when a disk that
 * the guest writes to cannot hold snapshots.
 */
export function layersOf(launch: MachineLaunch, paths: MachinePaths, attempted: string): readonly Layer[] {
  const written = launch.disks.filter(({ readOnly, cdrom }) => !readOnly && !cdrom);
  for (const { name, disk } of written) {
    if (disk.format === "qcow2") continue;
    throw new Fault("unsupported", `${attempted}: its disk ${name} is ${disk.format}, which keeps no snapshots`, {
      hint: "use a qcow2 disk",
    });
  }
  const layers: Layer[] = written.map(({ name, disk }) => ({ disk: name, node: diskNode(name), path: disk.path }));
  if (layers.length === 0) throw new Fault("unsupported", `${attempted}: it has no disk that it writes to`);
  if (launch.firmware !== "bios") layers.push({ node: "firmware-vars", path: paths.nvramFile });
  return layers;
}

/** Snapshots within the images of a machine that does not run. */
export async function tagStopped(layers: readonly Layer[], tag: string, call: Call): Promise<void> {
  await untagStopped(layers, tag, call);
  for (const { path } of layers) await imageSnapshot("-c", tag, path, call);
}

export async function applyStopped(layers: readonly Layer[], tag: string, call: Call): Promise<void> {
  for (const { path } of layers) await imageSnapshot("-a", tag, path, call);
}

export async function untagStopped(layers: readonly Layer[], tag: string, call: Call): Promise<void> {
  for (const { path } of layers) {
    // There may be more than one of the name when making them was interrupted.
    for (;;) {
      try {
        await imageSnapshot("-d", tag, path, call);
      } catch (error) {
        if (isFault(error) && /not find snapshot|not find a snapshot|snapshot not found/i.test(error.message)) break;
        throw error;
      }
    }
  }
}

async function imageSnapshot(verb: "-a" | "-c" | "-d", tag: string, path: string, call: Call): Promise<void> {
  const argv = ["qemu-img", "snapshot", "-q", verb, tag, path];
  const attempted = { "-a": "go back to", "-c": "make", "-d": "delete" }[verb];
  try {
    await run(
      argv,
      { attempted: `${attempted} snapshot ${tag} of ${path}`, timeoutMs: 600_000, endsWithUs: true },
      call,
    );
  } catch (error) {
    if (isFault(error) && /no space left/i.test(error.message))
      throw new Fault("exhausted", error.message, { cause: error });
    throw error;
  }
}

/** Snapshots of all disks at one instant, without memory, while the machine runs. */
export async function tagRunning(layers: readonly Layer[], tag: string, qmp: Qmp, call: Call): Promise<void> {
  await untagRunning(layers, tag, qmp, call);
  const actions = layers.map(({ node }) => {
    return { type: "blockdev-snapshot-internal-sync", data: { device: node, name: tag } };
  });
  await qmp.execute("transaction", { actions }, call);
}

/** Disks, memory and devices, while the machine runs; it stands still meanwhile. */
export async function saveRunning(layers: readonly Layer[], tag: string, qmp: Qmp, call: Call): Promise<void> {
  await untagRunning(layers, tag, qmp, call);
  const devices = layers.map(({ node }) => node);
  try {
    await qmp.runJob("snapshot-save", { tag, vmstate: devices[0], devices }, call);
  } catch (error) {
    const full = layers.find(({ path }) => isFull(path));
    if (full === undefined || !isFault(error, "failed")) throw error;
    // QEMU only says that something could not be written.
    throw new Fault("exhausted", `save memory and disks: no space left where ${full.path} is`, { cause: error });
  }
}

function isFull(path: string): boolean {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize < 2 ** 20;
}

/** Into a machine of the same shape that stands at its first instruction. */
export async function loadRunning(layers: readonly Layer[], tag: string, qmp: Qmp, call: Call): Promise<void> {
  const devices = layers.map(({ node }) => node);
  await qmp.runJob("snapshot-load", { tag, vmstate: devices[0], devices }, call);
}

export async function untagRunning(layers: readonly Layer[], tag: string, qmp: Qmp, call: Call): Promise<void> {
  await qmp.runJob("snapshot-delete", { tag, devices: layers.map(({ node }) => node) }, call);
}

/** QEMU's own programs open what an image names; so it is held against what the pool says first. */
export function requireSound(launch: MachineLaunch): void {
  for (const disk of launch.disks) if (!disk.cdrom) closeAll(openChain(disk));
}
