import { closeSync, constants, mkdirSync, openSync, rmSync } from "node:fs";
import type { Call } from "../../../base/call.ts";
import { withDeadline } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import { hostFault } from "../../../host/errno.ts";
import { openTap } from "../../../host/tap.ts";
import type { Limits, ProgramLaunch } from "../../contract.ts";
import type { Loaded } from "../../monitor/conmon.ts";
import type { Layout } from "../../monitor/layout.ts";
import { writeRecord } from "../../monitor/record.ts";
import type { Runtime } from "../../monitor/runtime.ts";
import type { Accelerator } from "../accelerator.ts";
import { type GuestSize, guestSize } from "../guest/size.ts";
import { loadSandbox, makeOwnDirectory, type Sandbox, sandboxUid } from "../sandbox.ts";
import { hostTscKhz } from "../tsc.ts";
import { Control, guestFault } from "./control.ts";
import { machineArgs, type MachinePlan } from "./machine.ts";
import { type MachinePaths, machinePaths, socketDirInside } from "./place.ts";

/** What a guest is made of besides its launch. */
export interface Parts {
  readonly accelerator: Accelerator;
  readonly kernelPath: string;
  readonly initramfsPath: string;
}

/** Where QEMU finds them. */
const kernelInside = "/guest/kernel";
const initramfsInside = "/guest/initramfs";

/** The first descriptor that a sandbox hands over. */
const firstDescriptor = 3;

/** What QEMU takes for itself: translated code, its own heap. */
const ownBytes = 256 * 2 ** 20;
const ownThreads = 64;

/** Puts QEMU in its sandbox, where it waits to be let go. On failure the caller clears away what is left. */
export async function loadMachine(
  launch: ProgramLaunch,
  parts: Parts,
  runtime: Runtime,
  layout: Layout,
  call: Call,
): Promise<Loaded> {
  const { root, attachment } = launch;
  if (root.kind !== "block" || attachment.kind !== "tap") {
    throw new Fault("bug", `${launch.id}: a microVM takes a block root and taps`);
  }
  const paths = layout.of(launch.id);
  const machine = machinePaths(paths);
  const uid = sandboxUid(launch.id);
  mkdirSync(paths.dir, { recursive: true, mode: 0o700 });
  rmSync(machine.dir, { recursive: true, force: true });
  mkdirSync(machine.dir, { recursive: true, mode: 0o700 });
  makeOwnDirectory(machine.socketDir, uid);
  using descriptors = new Descriptors();
  const size = guestSize(launch.limits);
  writeRecord(machine.sizeFile, size);
  const tscKhz = hostTscKhz();
  const plan: MachinePlan = {
    accelerator: parts.accelerator,
    size,
    kernelPath: kernelInside,
    initramfsPath: initramfsInside,
    ...(tscKhz === undefined ? {} : { tscKhz }),
    layers: root.layers.map(({ path }) => descriptors.open(path, constants.O_RDONLY)),
    ...(root.writable === undefined ? {} : { writable: descriptors.open(root.writable, constants.O_RDWR) }),
    taps: attachment.taps.map(({ name }) => descriptors.add(openTap(name))),
    exit: descriptors.open(machine.exitFile, constants.O_WRONLY | constants.O_CREAT),
    volumes: [],
    terminal: launch.terminal,
    memory: { kind: "own" },
  };
  const sandbox: Sandbox = {
    argv: machineArgs(plan),
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

/** Of the group around QEMU: the guest as a whole can take no more than this of the host. */
export function hostLimits(limits: Limits, size: GuestSize): Limits {
  return {
    ...(limits.cpus === undefined ? {} : { cpus: limits.cpus }),
    memoryBytes: size.memoryMiB * 2 ** 20 + ownBytes,
    pids: ownThreads + size.processors,
  };
}

/** Descriptors of ours that are handed over; closed here when that is done. */
class Descriptors implements Disposable {
  readonly all: number[] = [];

  open(path: string, flags: number): number {
    try {
      return this.add(openSync(path, flags, 0o600));
    } catch (error) {
      throw hostFault(error, `open ${path}`);
    }
  }

  /** The number by which the other side knows it. */
  add(descriptor: number): number {
    this.all.push(descriptor);
    return firstDescriptor + this.all.length - 1;
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.all) closeSync(descriptor);
  }
}

/** A guest with KVM boots in a fraction of a second, one without in some seconds, on a busy machine in many. */
const bootTimeoutMs = { kvm: 30_000, tcg: 120_000 } as const;

/**
 * Waits until the guest is there and hands it its launch; returns when its program runs. `isAlive` says whether QEMU is
 * there. A guest that runs its program already, as a daemon that was killed left it, is left alone.
 */
export async function handOver(
  what: string,
  machine: MachinePaths,
  message: () => Promise<Buffer>,
  accelerator: Accelerator,
  isAlive: () => boolean,
  call: Call,
): Promise<void> {
  const limitMs = bootTimeoutMs[accelerator.name];
  using bounded = withDeadline(call, limitMs, `${what}: boot its guest`);
  using control = await connected(what, machine.controlSocket, isAlive, bounded);
  control.write("\nhello\n");
  let sent = false;
  for (;;) {
    const line = await control.line(bounded);
    if (line === undefined) throw new Fault("failed", `${what}: its guest ended before its program ran`);
    if (line === "ready" && !sent) {
      sent = true;
      control.write(await message());
    }
    if (line.startsWith("started ") || line.startsWith("running ")) return;
    if (line.startsWith("fault ")) throw guestFault(what, line);
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
