import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import { writeFileAtomic } from "../../../host/file.ts";
import type { MachineLaunch } from "../../contract.ts";
import { readRecord, readText } from "../../monitor/record.ts";
import type { Qmp } from "../qmp.ts";
import { applyStopped, layersOf, loadRunning, requireSound, saveRunning, untagRunning, untagStopped } from "./block.ts";
import type { MachinePaths } from "./places.ts";
import type { Shape } from "./shape.ts";
import { layersOfSnapshot, readSnapshots, tagOf } from "./snapshots.ts";
import { connectTo, type Ground } from "./start.ts";

/** What the engine does for those who bring a saved memory back. */
export interface Hands {
  readonly ground: Ground;
  /** Ends whatever is left of a run. */
  clear(id: InstanceId, call: Call): Promise<void>;
  /** Starts a machine that stands still while `load` works, and then goes on. */
  runLoaded(
    id: InstanceId,
    launch: MachineLaunch,
    shape: Shape,
    load: (qmp: Qmp) => Promise<void>,
    call: Call,
  ): Promise<void>;
}

/** Memory of a machine that was put to sleep. */
interface Suspended {
  readonly shape: Shape;
}

const suspendTag = "suspended";

export function readSuspended(paths: MachinePaths): Suspended | undefined {
  return readRecord(paths.suspendedFile) as Suspended | undefined;
}

/** Saves memory and devices of a running machine. What runs is the caller's to end. */
export async function saveSuspended(
  id: InstanceId,
  launch: MachineLaunch,
  shape: Shape,
  ground: Ground,
  call: Call,
): Promise<void> {
  const paths = ground.layout.of(id);
  const attempted = `suspend ${id}`;
  if (launch.passthrough.pci.length > 0) {
    throw new Fault("unsupported", `${attempted}: the state of a device of the host cannot be saved`);
  }
  const layers = layersOf(launch, paths, attempted);
  using qmp = await connectTo(id, ground, call);
  // What the guest would do after this is lost, so it does nothing.
  await qmp.execute("stop", {}, call);
  try {
    await saveRunning(layers, suspendTag, qmp, call);
    mkdirSync(paths.keptDir, { recursive: true, mode: 0o700 });
    await writeFileAtomic(paths.suspendedFile, JSON.stringify({ shape } satisfies Suspended));
  } catch (error) {
    qmp.post("cont", {});
    throw error;
  }
}

/** Goes on where a suspended machine was; from its first instruction on the saved memory is gone. */
export async function resumeSuspended(
  id: InstanceId,
  launch: MachineLaunch,
  { shape }: Suspended,
  hands: Hands,
  call: Call,
): Promise<void> {
  const paths = hands.ground.layout.of(id);
  const layers = layersOf(launch, paths, `resume ${id}`);
  await hands.runLoaded(
    id,
    launch,
    shape,
    async (qmp) => {
      await loadRunning(layers, suspendTag, qmp, call);
      rmSync(paths.suspendedFile, { force: true });
      await untagRunning(layers, suspendTag, qmp, call);
    },
    call,
  );
}

/** Throws the saved memory of a machine away that does not run. */
export async function dropSuspended(launch: MachineLaunch, paths: MachinePaths, call: Call): Promise<void> {
  if (readSuspended(paths) === undefined) return;
  requireSound(launch);
  await untagStopped(layersOf(launch, paths, "throw saved memory away"), suspendTag, call);
  rmSync(paths.suspendedFile, { force: true });
}

/** A machine that was switched off in its sleep has ended well. */
export function writeExit(paths: MachinePaths, code: number): void {
  mkdirSync(dirname(paths.exitFile), { recursive: true, mode: 0o700 });
  writeFileSync(paths.exitFile, String(code), { mode: 0o600 });
}

export function readRevertMark(paths: MachinePaths): string | undefined {
  return (readRecord(paths.revertFile) as { readonly mark: string } | undefined)?.mark;
}

/** See `SnapshotsFacet.revert`. Returns whether the machine runs again. */
export async function revertTo(
  id: InstanceId,
  launch: MachineLaunch,
  request: { readonly name: string; readonly mark: string },
  hands: Hands,
  call: Call,
): Promise<boolean> {
  const paths = hands.ground.layout.of(id);
  const snapshot = readSnapshots(paths).find(({ name, isGoing }) => name === request.name && isGoing !== true);
  if (snapshot === undefined) throw new Fault("not-found", `${id} has no snapshot ${request.name}`);
  const attempted = `revert ${id} to ${request.name}`;
  const layers = layersOfSnapshot(snapshot, launch, paths, attempted);
  const { shape } = snapshot;
  if (shape !== undefined) requireDevices(launch, shape, attempted);
  const tag = tagOf(request.name);
  await hands.clear(id, call);
  await dropSuspended(launch, paths, call);
  const mark = (): Promise<void> => writeFileAtomic(paths.revertFile, JSON.stringify({ mark: request.mark }));
  if (shape === undefined) {
    requireSound(launch);
    await applyStopped(layers, tag, call);
    await mark();
    return false;
  }
  await hands.runLoaded(
    id,
    launch,
    shape,
    async (qmp) => {
      await loadRunning(layers, tag, qmp, call);
      await mark();
    },
    call,
  );
  return true;
}

/** A memory only fits a machine with the devices that it knows. */
function requireDevices(launch: MachineLaunch, shape: Shape, attempted: string): void {
  const taps = launch.attachment.kind === "tap" ? launch.attachment.taps : [];
  const disk = shape.disks.find(
    ({ name, empty }) => empty !== true && !launch.disks.some((known) => known.name === name),
  );
  const nic = shape.nics.find(({ mac }) => !taps.some((known) => known.mac === mac));
  const missing = disk !== undefined ? `disk ${disk.name}` : nic !== undefined ? `nic ${nic.mac}` : undefined;
  if (missing === undefined) return;
  throw new Fault("precondition", `${attempted}: its memory knows ${missing}, which it no longer has`, {
    hint: "give it back what it had then",
  });
}

/** How far a machine that stands at its first instruction has come: what a daemon that died meanwhile was about to do. */
export type Pause = "loading" | "loaded";

export function readPause(paths: MachinePaths): Pause | undefined {
  const text = readText(paths.pausedFile);
  return text === "loading" || text === "loaded" ? text : undefined;
}

export function writePause(paths: MachinePaths, pause: Pause | undefined): void {
  if (pause === undefined) rmSync(paths.pausedFile, { force: true });
  else writeFileSync(paths.pausedFile, pause, { mode: 0o600 });
}
