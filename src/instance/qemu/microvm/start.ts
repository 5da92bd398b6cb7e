import { constants, mkdirSync, rmSync } from "node:fs";
import type { Call } from "../../../base/call.ts";
import { withDeadline } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import type { Cgroups } from "../../../host/cgroup.ts";
import { openTap } from "../../../host/tap.ts";
import type { Root } from "../../../storage/contract.ts";
import type { Limits, ProgramLaunch } from "../../contract.ts";
import type { Loaded } from "../../monitor/conmon.ts";
import type { Layout } from "../../monitor/layout.ts";
import { writeRecord } from "../../monitor/record.ts";
import type { Runtime } from "../../monitor/runtime.ts";
import type { Accelerator } from "../accelerator.ts";
import { type GuestSize, guestSize } from "../guest/size.ts";
import { loadSandbox, makeOwnDirectory, type Sandbox, sandboxUid } from "../sandbox.ts";
import { hostTscKhz } from "../tsc.ts";
import { replaceDisk } from "./blank-disk.ts";
import { Control, guestFault } from "./control.ts";
import { Descriptors } from "./descriptors.ts";
import { connectQmp } from "../qmp.ts";
import { ignoreShared, instancePorts, listening, machineArgs, type MachinePlan, unannounced } from "./machine.ts";
import type { Suspended } from "./suspend.ts";
import type { SavedMemory, WarmKey } from "./warm.ts";
import { serveVolumes, volumesOf } from "./volume.ts";
import { exitBytes, type MachinePaths, machinePaths, readExitWords, socketDirInside } from "./place.ts";

/** What a guest is made of besides its launch. */
export interface Parts {
  readonly accelerator: Accelerator;
  readonly kernelPath: string;
  readonly initramfsPath: string;
}

/** Those who change what it is loaded with. */
export interface Loading {
  readonly runtime: Runtime;
  readonly layout: Layout;
  readonly cgroups: Cgroups;
  /** By which others go on from a memory as this one's will be. */
  readonly key: WarmKey | undefined;
  /** Called when one of those who serve its volumes ends. */
  readonly onVolumeEnd: () => void;
}

/** Where QEMU finds them. */
const kernelInside = "/guest/kernel";
const initramfsInside = "/guest/initramfs";

/** What QEMU takes for itself: translated code, its own heap. */
const ownBytes = 256 * 2 ** 20;
const ownThreads = 64;

/** Puts QEMU in its sandbox, where it waits to be let go: to boot, or to go on from what was saved. On failure the caller clears away what is left. */
export async function loadMachine(
  launch: ProgramLaunch,
  parts: Parts,
  saved: SavedMemory | Suspended | undefined,
  { runtime, layout, cgroups, key, onVolumeEnd }: Loading,
  call: Call,
): Promise<Loaded> {
  const { root, attachment } = launch;
  if (attachment.kind !== "tap") throw new Fault("bug", `${launch.id}: a microVM takes taps`);
  const paths = layout.of(launch.id);
  const machine = machinePaths(paths);
  const uid = sandboxUid(launch.id);
  mkdirSync(paths.dir, { recursive: true, mode: 0o700 });
  rmSync(machine.dir, { recursive: true, force: true });
  mkdirSync(machine.dir, { recursive: true, mode: 0o700 });
  makeOwnDirectory(machine.socketDir, uid);
  if (saved !== undefined && "disk" in saved && root.kind === "block" && root.writable !== undefined) {
    replaceDisk(root.writable, saved.disk);
  }
  using descriptors = new Descriptors();
  const size = saved !== undefined && "size" in saved ? saved.size : guestSize(launch.limits);
  const tscKhz = hostTscKhz();
  const plan: MachinePlan = {
    accelerator: parts.accelerator,
    size,
    kernelPath: kernelInside,
    initramfsPath: initramfsInside,
    ...(tscKhz === undefined ? {} : { tscKhz }),
    ...openDisks(root, descriptors),
    taps: attachment.taps.map(({ name }) => descriptors.add(openTap(name))),
    volumes: serveVolumes(volumesOf(launch), machine, uid, paths.cgroup, cgroups, onVolumeEnd),
    ports: instancePorts(launch.terminal, descriptors.bounded(machine.exitFile, exitBytes)),
    qmp: listening("qmp"),
    memory: memoryOf(saved, descriptors),
  };
  const warm =
    saved !== undefined && "ram" in saved && plan.memory.kind === "resumed"
      ? { warm: { key: saved.key, state: plan.memory.state } }
      : {};
  writeRecord(machine.madeFile, { size, ...(key === undefined ? {} : { key }), ...warm } satisfies MadeAs);
  const sandbox: Sandbox = {
    argv: machineArgs(plan, descriptors.named),
    uid,
    descriptors: descriptors.all,
    binds: [
      { source: parts.kernelPath, destination: kernelInside, readOnly: true },
      { source: parts.initramfsPath, destination: initramfsInside, readOnly: true },
      { source: machine.socketDir, destination: socketDirInside, readOnly: false },
    ],
    devices: parts.accelerator.name === "kvm" ? ["/dev/kvm"] : [],
    limits: hostLimits(launch.limits, size),
    stdin: launch.stdin || launch.terminal,
    stdinEnds: !launch.terminal,
    log: launch.log,
  };
  return await loadSandbox(launch.id, sandbox, runtime, layout, call);
}

function memoryOf(saved: SavedMemory | Suspended | undefined, descriptors: Descriptors): MachinePlan["memory"] {
  if (saved === undefined) return { kind: "own" };
  if (!("ram" in saved)) return { kind: "restored" };
  const state = descriptors.open(saved.statePath, constants.O_RDONLY);
  return { kind: "resumed", ram: descriptors.lend(saved.ram), state };
}

/** Layers can be read by all who have them; what is written is the instance's own. */
export function openDisks(root: Root, descriptors: Descriptors): Pick<MachinePlan, "layers" | "writable"> {
  if (root.kind === "directory") return { layers: [] };
  const layers = root.layers.map(({ path }) => descriptors.file(path, constants.O_RDONLY));
  if (root.writable === undefined) return { layers };
  return { layers, writable: descriptors.file(root.writable, constants.O_RDWR) };
}

/** Of the group around QEMU: the guest as a whole can take no more than this of the host. */
export function hostLimits(limits: Limits, size: GuestSize): Limits {
  return {
    ...(limits.cpus === undefined ? {} : { cpus: limits.cpus }),
    memoryBytes: size.memoryMiB * 2 ** 20 + ownBytes,
    pids: ownThreads + size.processors,
  };
}

/** What the machine of this run was made as: `MadeAs`. */
export interface MadeAs {
  readonly size: GuestSize;
  /** By which others go on from a memory as this one's. */
  readonly key?: WarmKey;
  /** The memory it goes on from: its name, and QEMU's descriptor of the devices' state. */
  readonly warm?: { readonly key: string; readonly state: number };
}

/** Lets a machine that was loaded with saved memory go on from it, unless somebody did who was killed then. */
export async function resume(
  what: string,
  machine: MachinePaths,
  state: number,
  isAlive: () => boolean,
  call: Call,
): Promise<void> {
  using qmp = await connectQmp(machine.qmpSocket, what, isAlive, call);
  const { status } = (await qmp.execute("query-status", {}, call)) as { readonly status?: string };
  if (status !== "inmigrate") return;
  await qmp.execute("migrate-set-capabilities", ignoreShared, call);
  await qmp.execute("migrate-set-parameters", unannounced, call);
  await qmp.execute("migrate-incoming", { uri: `fd:${state}` }, call);
}

/** A guest with KVM boots in a fraction of a second, one without in some seconds, on a busy machine in many. */
const bootTimeoutsMs = { kvm: 30_000, tcg: 120_000 } as const;
/** One that went on from saved memory is there at once, or never. */
const resumeTimeoutMs = 15_000;

/** Whether a guest was made just now, and how. */
export type Freshness = "booting" | "resumed" | "unknown";

export function bootTimeoutMs(accelerator: Accelerator, fresh: Freshness): number {
  return fresh === "resumed" ? resumeTimeoutMs : bootTimeoutsMs[accelerator.name];
}

/**
 * Waits until the guest is there and hands it its launch; returns when its program runs. `isAlive` says whether QEMU is
 * there, `fresh` whether it was made just now. A guest that runs its program already, as a daemon that was killed left it, is
 * left alone.
 */
export async function handOver(
  what: string,
  machine: MachinePaths,
  message: () => Promise<Buffer>,
  isAlive: () => boolean,
  { fresh, limitMs, onAnswer }: { readonly fresh: Freshness; readonly limitMs: number; readonly onAnswer?: () => void },
  call: Call,
): Promise<void> {
  using bounded = withDeadline(call, limitMs, `${what}: boot its guest`);
  const hail = (inner: Call): Promise<Control> => hailed(what, machine.controlSocket, isAlive, inner);
  const met =
    fresh === "unknown" ? await metAgain(hail, what, bounded) : { control: await hail(bounded), first: undefined };
  using control = met.control;
  // One that waits for sure is not asked first; one that boots would hear of a time that has passed.
  let sent = fresh === "resumed";
  if (sent) control.write(await message());
  for (let known = met.first; ; known = undefined) {
    const line = known ?? (await control.line(bounded));
    if (line === undefined) {
      // A program that ended at once, before the guest could say that it ran; one that could not begin was told of.
      if (readExitWords(machine) !== "") return;
      throw new Fault("failed", `${what}: its guest ended before its program ran`);
    }
    if (line === "ready") onAnswer?.();
    if (line === "ready" && !sent) {
      sent = true;
      control.write(await message());
    }
    if (line.startsWith("started ") || line.startsWith("running ")) return;
    if (line.startsWith("fault ")) throw guestFault(what, line);
  }
}

async function hailed(what: string, path: string, isAlive: () => boolean, call: Call): Promise<Control> {
  const control = await connected(what, path, isAlive, call);
  control.write("\nhello\n");
  return control;
}

/** How long a guest that was there before may take to answer, and how long nobody is at its port then. */
const answerMs = 3_000;
const awayMs = 300;

/**
 * A guest may still read what a daemon sent that was killed, and takes what we say for a part of that. It gives up when it
 * sees that nobody is there: so we go and come again until it says something.
 */
async function metAgain(
  hail: (call: Call) => Promise<Control>,
  what: string,
  call: Call,
): Promise<{ readonly control: Control; readonly first: string | undefined }> {
  for (;;) {
    const control = await hail(call);
    try {
      using patience = withDeadline(call, answerMs, what);
      return { control, first: await control.line(patience) };
    } catch (error) {
      control[Symbol.dispose]();
      if (call.signal.aborted || !isFault(error, "timeout")) throw error;
    }
    await call.clock.sleep(awayMs, call.signal);
  }
}

async function connected(what: string, path: string, isAlive: () => boolean, call: Call): Promise<Control> {
  for (let tries = 0; ; tries += 1) {
    const alive = isAlive();
    try {
      return Control.connect(path, what);
    } catch (error) {
      if (!isFault(error, "not-found") && !isFault(error, "unavailable")) throw error;
      if (!alive) throw new Fault("failed", `${what}: QEMU ended at once`, { cause: error });
      await call.clock.sleep(Math.min(1 + tries, 20), call.signal);
    }
  }
}
