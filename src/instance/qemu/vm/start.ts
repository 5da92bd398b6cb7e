import { closeSync, existsSync, openSync, rmSync, writeFileSync } from "node:fs";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { Home } from "../../../base/home.ts";
import type { InstanceId } from "../../../base/id.ts";
import { formatSize } from "../../../base/unit.ts";
import type { CgroupLimits, Cgroups } from "../../../host/cgroup.ts";
import { openTap } from "../../../host/tap.ts";
import type { Limits, MachineLaunch } from "../../contract.ts";
import { keepLog, readLog, rotateLog } from "../../monitor/log-file.ts";
import type { MonitorRecord } from "../../monitor/conmon.ts";
import { observe } from "../../monitor/observe.ts";
import { readText, writeRecord } from "../../monitor/record.ts";
import type { Runtime } from "../../monitor/runtime.ts";
import { type Accelerator, findAccelerator } from "../accelerator.ts";
import { connectQmp, type Qmp } from "../qmp.ts";
import { loadSandbox, makeOwnDirectory, type Sandbox, sandboxUid } from "../sandbox.ts";
import { type DiskChain, type Firmware, ioPlace, machineArgs, tpmPlace } from "./arguments.ts";
import { openChain } from "./chain.ts";
import { fatImage } from "./fat.ts";
import { findFirmware, makeNvram } from "./firmware.ts";
import { pciNodes, usbNodes } from "./passthrough.ts";
import type { MachineLayout, MachinePaths } from "./places.ts";
import type { Shape } from "./shape.ts";
import { startTpm } from "./tpm.ts";

/** What every verb of the engine stands on. */
export interface Ground {
  readonly home: Home;
  readonly layout: MachineLayout;
  readonly cgroups: Cgroups;
  readonly runtime: Runtime;
}

export interface Started {
  readonly pid: number;
  readonly monitor: MonitorRecord;
  readonly monitorEnded: Promise<unknown>;
}

const mebibyte = 2 ** 20;
/** What QEMU needs besides the guest's memory: translated code, caches of disks, the screen, threads. */
const ownMemoryBytes = 512 * mebibyte;

/**
 * Starts QEMU with a machine of this shape, which differs from what the launch says where a saved memory asks for it.
 * Returns when QEMU answers: whatever it does not like about its arguments or files it says before that, and that is the
 * Fault. On failure the caller clears away what is left.
 */
export async function startMachine(
  id: InstanceId,
  launch: MachineLaunch,
  shape: Shape,
  paused: boolean,
  ground: Ground,
  call: Call,
): Promise<Started> {
  const { layout, runtime, cgroups } = ground;
  const paths = layout.of(id);
  const uid = sandboxUid(id);
  const accelerator = await chooseAccelerator(launch, ground.home, call);
  if (shape.hugepages) requireHugePages(id, shape.memoryBytes);
  const firmware = findFirmware(shape.firmware);
  if (firmware !== undefined) await makeNvram(firmware, paths, call);
  const devices = [
    ...(accelerator.name === "kvm" ? ["/dev/kvm"] : []),
    ...pciNodes(shape.pci.map(({ address }) => address)),
    ...usbNodes(shape.usb),
  ];
  using files = new Handover();
  const disks = new Map<string, DiskChain>();
  for (const { name, empty } of shape.disks) {
    if (empty === true) continue;
    const disk = launch.disks.find((known) => known.name === name);
    if (disk === undefined) throw new Fault("precondition", `start ${id}: its disk ${name} is gone`);
    disks.set(name, { files: openChain(disk).map(({ fd, format }) => ({ fdset: files.addSet(fd), format })) });
  }
  let flash: Firmware | undefined;
  if (firmware !== undefined) {
    flash = { codePath: firmware.code, varsFdset: files.addSet(openSync(paths.nvramFile, "r+")) };
  }
  const seed = writeSeed(launch, paths);
  const seedFdset =
    seed === undefined || shape.seedSlot === undefined ? {} : { seedFdset: files.addSet(openSync(seed, "r")) };
  const tapFds = shape.nics.map(({ mac }) => files.add(openTap(tapOf(launch, mac))));
  const resources = {
    disks,
    tapFds,
    ...seedFdset,
    ...(flash === undefined ? {} : { firmware: flash }),
    fdsets: files.sets,
  };
  const argv = machineArgs(shape, resources, { accelerator, hostname: launch.hostname, paused });
  makeOwnDirectory(paths.ioDir, uid);
  for (const path of [paths.qmpSocket, paths.agentSocket, paths.vncSocket]) rmSync(path, { force: true });
  if (shape.tpm) await startTpm(id, uid, runtime, layout, cgroups, call);
  const binds = [{ source: paths.ioDir, destination: ioPlace, readOnly: false }];
  if (shape.tpm) binds.push({ source: paths.tpmSocketDir, destination: tpmPlace, readOnly: false });
  rotateLog(paths.logDir, launch.log.maxBytes);
  writeRecord(paths.shapeFile, shape);
  // QEMU asks how large huge pages are before it says how it plugs in memory.
  const pages = "/sys/kernel/mm/transparent_hugepage";
  if (existsSync(pages)) binds.push({ source: pages, destination: pages, readOnly: true });
  const sandbox: Sandbox = {
    argv,
    uid,
    binds,
    devices,
    descriptors: files.descriptors,
    limits: hostLimits(shape, launch.limits),
    stdin: true,
    log: launch.log,
    lockedMemory: shape.pci.length > 0,
  };
  const loaded = await loadSandbox(id, sandbox, runtime, layout, call);
  cgroups.adopt(layout.monitorCgroup, loaded.monitor.pid);
  keepLog(paths.logDir);
  await runtime.release(id, layout, paths, call);
  return loaded;
}

/** What the group of QEMU is limited to: the guest's own size limits the guest. */
export function hostLimits(shape: Shape, limits: Limits): CgroupLimits {
  const guestBytes = shape.memoryBytes + shape.pluggedMemoryBytes;
  return {
    ...(limits.cpus === undefined ? {} : { cpus: limits.cpus }),
    // Memory in huge pages is counted elsewhere.
    memoryBytes: ownMemoryBytes + (shape.hugepages ? 0 : Math.ceil(guestBytes * 1.02)),
    // Its threads: one for each processor, and some that read and write disks.
    pids: shape.maxCpus + 256,
  };
}

/** Connects to the QEMU of an instance; `precondition` when it does not run. */
export function connectTo(id: InstanceId, ground: Ground, call: Call): Promise<Qmp> {
  const paths = ground.layout.of(id);
  return connectQmp(paths.qmpSocket, id, () => observe(paths, ground.cgroups).main !== undefined, call);
}

/** Why QEMU ended, in its own words: the last lines that it wrote since then. */
export async function lastWords(paths: MachinePaths, sinceMs: number, call: Call): Promise<string> {
  const said: string[] = [];
  for await (const line of readLog(paths.logDir, { follow: false, sinceMs, tail: 50 }, () => true, neverWoken, call)) {
    if (line.stream === "stderr") said.push(Buffer.from(line.bytes).toString("utf8"));
  }
  return said
    .filter((line) => !/warning:/.test(line))
    .map((line) => line.replace(/^qemu-system-x86_64: /, "").replace(/^-[a-z-]+ \{.*?\}: /, ""))
    .slice(-3)
    .join("; ");
}

/** What is asked for once needs no waking. */
function neverWoken(): () => void {
  return () => {};
}

/** The Fault for those words. */
export function startFault(id: InstanceId, words: string, code: number | undefined): Fault {
  const text = words === "" ? `QEMU ended with code ${code ?? "?"}` : words;
  const message = `start ${id}: ${text}`;
  if (/no space left/i.test(text)) return new Fault("exhausted", message);
  if (/Failed to get .* lock|is another process using/i.test(text)) {
    return new Fault("conflict", message, { hint: "another process has the disk open" });
  }
  if (/cannot allocate memory|insufficient/i.test(text)) {
    return new Fault("exhausted", message, { hint: "the host has too little memory, or too few huge pages, for it" });
  }
  if (/corrupt|could not read|truncated|not in qcow2 format/i.test(text)) return new Fault("corrupt", message);
  if (/unable to find CPU model|invalid CPU/i.test(text)) {
    return new Fault("invalid", message, { hint: "qemu-system-x86_64 -cpu help lists the models" });
  }
  return new Fault("failed", message);
}

async function chooseAccelerator(launch: MachineLaunch, home: Home, call: Call): Promise<Accelerator> {
  const accelerator = await findAccelerator(home, call);
  if (launch.cpuModel === "host" && accelerator.name !== "kvm") {
    throw new Fault("unsupported", `start ${launch.id}: the host's own cpu model needs KVM: ${accelerator.detail}`, {
      hint: accelerator.mend ?? "choose another model, or none",
    });
  }
  return accelerator;
}

/** QEMU says of it only that it cannot allocate memory. */
function requireHugePages(id: InstanceId, memoryBytes: number): void {
  const text = readText("/proc/meminfo") ?? "";
  const count = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
  const pageBytes = count("Hugepagesize") * 1024;
  if (pageBytes === 0) throw new Fault("unsupported", `start ${id}: this kernel has no huge pages`);
  const needed = Math.ceil(memoryBytes / pageBytes);
  // What is reserved is free until it is touched, and belongs to somebody else.
  const free = count("HugePages_Free") - count("HugePages_Rsvd");
  if (free >= needed) return;
  throw new Fault(
    "exhausted",
    `start ${id}: it needs ${needed} huge pages of ${formatSize(pageBytes)}, and ${free} are free`,
    {
      hint: `set them aside: sysctl vm.nr_hugepages=${count("HugePages_Total") + needed - free}`,
    },
  );
}

function tapOf(launch: MachineLaunch, mac: string): string {
  const taps = launch.attachment.kind === "tap" ? launch.attachment.taps : [];
  const tap = taps.find((known) => known.mac === mac);
  if (tap === undefined) throw new Fault("precondition", `start ${launch.id}: its nic ${mac} is gone`);
  return tap.name;
}

/** The NoCloud seed, written anew before each start. */
function writeSeed({ cloudInit }: MachineLaunch, paths: MachinePaths): string | undefined {
  if (cloudInit === undefined) return undefined;
  const files = [
    { name: "user-data", content: Buffer.from(cloudInit.userData) },
    { name: "meta-data", content: Buffer.from(cloudInit.metaData) },
    { name: "network-config", content: Buffer.from(cloudInit.networkConfig) },
  ];
  writeFileSync(paths.seedFile, fatImage("cidata", files), { mode: 0o600 });
  return paths.seedFile;
}

/** Open descriptors on their way to a program, which finds them from 3 on; ours are closed at the end. */
class Handover implements Disposable {
  readonly descriptors: number[] = [];
  readonly sets: { readonly fd: number; readonly fdset: number }[] = [];

  /** The number under which the program has it. */
  add(fd: number): number {
    this.descriptors.push(fd);
    return 2 + this.descriptors.length;
  }

  addSet(fd: number): number {
    const fdset = this.sets.length + 1;
    this.sets.push({ fd: this.add(fd), fdset });
    return fdset;
  }

  [Symbol.dispose](): void {
    for (const fd of this.descriptors) closeSync(fd);
  }
}
