import { mkdirSync } from "node:fs";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import { writeFileAtomic } from "../../../host/file.ts";
import type { MachineLaunch, SnapshotFacts, SnapshotSpec } from "../../contract.ts";
import { readRecord } from "../../monitor/record.ts";
import {
  type Layer,
  layersOf,
  requireSound,
  saveRunning,
  tagRunning,
  tagStopped,
  untagRunning,
  untagStopped,
} from "./block.ts";
import { withFrozenFiles } from "./frozen-files.ts";
import type { MachinePaths } from "./places.ts";
import type { Shape } from "./shape.ts";
import { connectTo, type Ground } from "./start.ts";

/** A snapshot that was made; those that are half made are in no record, and are overwritten. */
export interface SnapshotRecord extends SnapshotFacts {
  /** Which disks are in it. */
  readonly disks: readonly string[];
  /** The machine whose memory it is. */
  readonly shape?: Shape;
  /** Its deletion began. */
  readonly isGoing?: boolean;
}

/** Names of snapshots within images; another one is for memory that is saved while a machine is suspended. */
export function tagOf(name: string): string {
  return `croft-${name}`;
}

export function readSnapshots(paths: MachinePaths): readonly SnapshotRecord[] {
  return (readRecord(paths.snapshotsFile) as readonly SnapshotRecord[] | undefined) ?? [];
}

async function writeSnapshots(paths: MachinePaths, records: readonly SnapshotRecord[]): Promise<void> {
  mkdirSync(paths.keptDir, { recursive: true, mode: 0o700 });
  await writeFileAtomic(paths.snapshotsFile, JSON.stringify(records));
}

export function snapshotFacts(paths: MachinePaths): SnapshotFacts[] {
  return readSnapshots(paths)
    .filter(({ isGoing }) => isGoing !== true)
    .map(({ name, memory, createdMs }) => ({ name, memory, createdMs }));
}

/** `isRunning`: by QEMU itself, else on the files. */
export async function createSnapshot(
  id: InstanceId,
  spec: SnapshotSpec,
  machine: { readonly launch: MachineLaunch; readonly shape?: Shape; readonly isRunning: boolean },
  ground: Ground,
  call: Call,
): Promise<void> {
  const paths = ground.layout.of(id);
  const attempted = `make snapshot ${spec.name} of ${id}`;
  const known = readSnapshots(paths);
  const before = known.find(({ name, isGoing }) => name === spec.name && isGoing !== true);
  if (before?.memory === spec.memory) return;
  if (before !== undefined) {
    throw new Fault(
      "conflict",
      `${attempted}: there is one of that name ${before.memory ? "with" : "without"} memory`,
      {
        hint: "choose another name, or remove it first",
      },
    );
  }
  if (spec.memory && !machine.isRunning) {
    throw new Fault("precondition", `${attempted}: it has no memory, as it does not run`, { hint: "start it first" });
  }
  if (machine.launch.passthrough.pci.length > 0 && spec.memory) {
    throw new Fault("unsupported", `${attempted}: the state of a device of the host cannot be saved`, {
      hint: "make one without memory",
    });
  }
  const layers = layersOf(machine.launch, paths, attempted);
  const tag = tagOf(spec.name);
  if (!machine.isRunning) {
    requireSound(machine.launch);
    await tagStopped(layers, tag, call);
  } else {
    using qmp = await connectTo(id, ground, call);
    try {
      if (spec.memory) await saveRunning(layers, tag, qmp, call);
      else await withFrozenFiles(paths, call, () => tagRunning(layers, tag, qmp, call));
    } catch (error) {
      // What was written of it would take room until the next one of that name.
      await untagRunning(layers, tag, qmp, call).catch(() => {});
      throw error;
    }
  }
  const record: SnapshotRecord = {
    ...spec,
    createdMs: call.clock.nowMs(),
    disks: layers.flatMap(({ disk }) => (disk === undefined ? [] : [disk])),
    ...(spec.memory && machine.shape !== undefined ? { shape: machine.shape } : {}),
  };
  await writeSnapshots(paths, [...known.filter(({ name }) => name !== spec.name), record]);
}

export async function removeSnapshot(
  id: InstanceId,
  name: string,
  machine: { readonly launch: MachineLaunch; readonly isRunning: boolean },
  ground: Ground,
  call: Call,
): Promise<void> {
  const paths = ground.layout.of(id);
  const known = readSnapshots(paths);
  const record = known.find((snapshot) => snapshot.name === name);
  if (record === undefined) return;
  await writeSnapshots(
    paths,
    known.map((snapshot) => (snapshot === record ? { ...record, isGoing: true } : snapshot)),
  );
  const layers = layersOfSnapshot(record, machine.launch, paths, `remove snapshot ${name} of ${id}`);
  if (machine.isRunning) {
    using qmp = await connectTo(id, ground, call);
    await untagRunning(layers, tagOf(name), qmp, call);
  } else {
    requireSound(machine.launch);
    await untagStopped(layers, tagOf(name), call);
  }
  await writeSnapshots(
    paths,
    known.filter((snapshot) => snapshot !== record),
  );
}

/** Those of its files that the machine still has. */
export function layersOfSnapshot(
  { disks }: SnapshotRecord,
  launch: MachineLaunch,
  paths: MachinePaths,
  attempted: string,
): readonly Layer[] {
  return layersOf(launch, paths, attempted).filter(({ disk }) => disk === undefined || disks.includes(disk));
}
