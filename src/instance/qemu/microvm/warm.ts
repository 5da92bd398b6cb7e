import {
  chownSync,
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { Home } from "../../../base/home.ts";
import { linkName } from "../../../base/home.ts";
import { canonicalJson, shortHash } from "../../../base/id.ts";
import { identifyProcess, isAlive, signalProcess } from "../../../host/proc.ts";
import { spawnDetached } from "../../../host/process.ts";
import { sealedCopy } from "../../../host/sealed-memory.ts";
import { openPassingTap } from "../../../host/tap.ts";
import { listenUnixStream } from "../../../host/unix-listen.ts";
import type { ProgramLaunch } from "../../contract.ts";
import { namesIn, readText } from "../../monitor/record.ts";
import { qemuProgram } from "../accelerator.ts";
import { guestSize } from "../guest/size.ts";
import { connectQmp } from "../qmp.ts";
import { hostTscKhz } from "../tsc.ts";
import { Control } from "./control.ts";
import { Descriptors } from "./descriptors.ts";
import { ignoreShared, machineArgs, type MachinePlan } from "./machine.ts";
import type { Parts } from "./start.ts";

/**
 * Guests that do not boot: the memory of one that has booted up to where it waits for its launch is kept, and others go on
 * from there. It holds the kernel and what the image's layers begin with, no launch, no secret, no identity. All who go on
 * from it share its pages until they write to them.
 */
export interface SavedMemory {
  readonly key: string;
  /** A descriptor of ours, of memory that nobody can change. */
  readonly ram: number;
  /** The devices. */
  readonly statePath: string;
}

/** More than these are not kept: each is some 70 MB on disk. */
const maxKept = 8;

/** Pages that were in use lately stay in memory; they are read again from disk when they are needed after that. */
const forgetMemoryMs = 15 * 60_000;

/** A boot without KVM on a busy machine, behind others. */
const makeTimeoutMs = 300_000;

const ramName = "ram";
const stateName = "state";

export class WarmStarts {
  readonly #home: Home;
  readonly #directory: string;
  readonly #loaded = new Map<string, { ram: Promise<number>; stopForgetting: () => void }>();
  readonly #making = new Map<string, Promise<void>>();

  constructor(home: Home) {
    this.#home = home;
    this.#directory = join(home.libDir, "guest", "warm");
    this.#clearUnfinished();
  }

  /** What of a launch and its parts the guest has seen when it waits; undefined for one that cannot be saved. */
  keyOf(launch: ProgramLaunch, parts: Parts): string | undefined {
    const { root, attachment, mounts } = launch;
    if (launch.warmStart === false || root.kind !== "block" || attachment.kind !== "tap") return undefined;
    // Whoever serves a directory cannot hand it on.
    if (mounts.some(({ kind }) => kind === "bind")) return undefined;
    const qemu = statSync(qemuProgram);
    const seen = {
      version: 3,
      qemu: [qemu.ino, qemu.size, qemu.mtimeMs],
      accelerator: parts.accelerator.name,
      kernel: parts.kernelPath,
      initramfs: parts.initramfsPath,
      size: guestSize(launch.limits),
      layers: root.layers.map(({ digest }) => digest),
      writableBytes: root.writable === undefined ? 0 : statSync(root.writable).size,
      nics: attachment.taps.length,
      tscKhz: hostTscKhz() ?? 0,
    };
    return shortHash(canonicalJson(seen), 16);
  }

  async find(key: string, call: Call): Promise<SavedMemory | undefined> {
    const directory = join(this.#directory, key);
    if (statSync(join(directory, stateName), { throwIfNoEntry: false }) === undefined) return undefined;
    const known = this.#loaded.get(key);
    known?.stopForgetting();
    const ram = known?.ram ?? sealedCopy(join(directory, ramName), "croft-guest", call);
    const stopForgetting = call.clock.after(forgetMemoryMs, () => void this.#unload(key));
    this.#loaded.set(key, { ram, stopForgetting });
    try {
      const descriptor = await ram;
      const now = new Date(call.clock.nowMs());
      utimesSync(directory, now, now);
      return { key, ram: descriptor, statePath: join(directory, stateName) };
    } catch (error) {
      this.#loaded.delete(key);
      stopForgetting();
      throw error;
    }
  }

  /** Begins to make what `find` did not find; nobody waits for it. */
  learn(key: string, launch: ProgramLaunch, parts: Parts, call: Call): void {
    if (this.#making.size > 0) return;
    const making = this.#make(key, launch, parts, call)
      // The next start tries again.
      .catch(() => {})
      .finally(() => this.#making.delete(key));
    this.#making.set(key, making);
  }

  /** Resolves when nothing is being made. */
  async settled(): Promise<void> {
    await Promise.all(this.#making.values());
  }

  /** A memory from which no guest went on. */
  async forget(key: string): Promise<void> {
    rmSync(join(this.#directory, key), { recursive: true, force: true });
    await this.#unload(key);
  }

  async #unload(key: string): Promise<void> {
    const known = this.#loaded.get(key);
    if (known === undefined) return;
    this.#loaded.delete(key);
    known.stopForgetting();
    closeSync(await known.ram);
  }

  async #make(key: string, launch: ProgramLaunch, parts: Parts, call: Call): Promise<void> {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    this.#clearUnfinished();
    const directory = join(this.#directory, `${key}.new`);
    mkdirSync(directory, { mode: 0o700 });
    try {
      using bounded = withDeadline(call, makeTimeoutMs, `save the memory of a guest for ${launch.id}`);
      await saveBooted(directory, linkName(this.#home, `warm ${key}`), launch, parts, bounded);
      for (const name of [ramName, stateName]) syncFile(join(directory, name));
      await rename(directory, join(this.#directory, key));
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
    this.#dropOldest();
    await this.find(key, call);
  }

  /** What a daemon left that was killed: its QEMU died with it. There is one daemon, and it makes one at a time. */
  #clearUnfinished(): void {
    for (const name of namesIn(this.#directory)) {
      if (name.endsWith(".new")) rmSync(join(this.#directory, name), { recursive: true, force: true });
    }
  }

  #dropOldest(): void {
    const kept = readdirSync(this.#directory)
      .map((name) => ({ name, usedMs: statSync(join(this.#directory, name)).mtimeMs }))
      .sort((left, right) => right.usedMs - left.usedMs);
    for (const { name } of kept.slice(maxKept)) void this.forget(name);
  }
}

function syncFile(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A user of whom nothing else is. */
const templateUid = 0x6fff_fffe;

/** Boots a guest to where it waits, and writes its memory and devices to the directory. It ends with us. */
async function saveBooted(
  directory: string,
  tap: string,
  launch: ProgramLaunch,
  parts: Parts,
  call: Call,
): Promise<void> {
  const { root, attachment } = launch;
  if (root.kind !== "block" || attachment.kind !== "tap") throw new Fault("bug", `${launch.id} cannot be saved`);
  const what = `save the memory of a guest for ${launch.id}`;
  const size = guestSize(launch.limits);
  const tscKhz = hostTscKhz();
  const path = (name: string): string => join(directory, name);
  using descriptors = new Descriptors();
  const scratch = (name: string, sizeBytes: number): string => {
    writeFileSync(path(name), "", { mode: 0o600 });
    truncateSync(path(name), sizeBytes);
    // QEMU opens the memory by its name.
    chownSync(path(name), templateUid, templateUid);
    return path(name);
  };
  const plan: MachinePlan = {
    accelerator: parts.accelerator,
    size,
    kernelPath: `/proc/self/fd/${descriptors.open(parts.kernelPath, constants.O_RDONLY)}`,
    initramfsPath: `/proc/self/fd/${descriptors.open(parts.initramfsPath, constants.O_RDONLY)}`,
    ...(tscKhz === undefined ? {} : { tscKhz }),
    layers: root.layers.map((layer) => descriptors.file(layer.path, constants.O_RDONLY)),
    ...(root.writable === undefined
      ? {}
      : { writable: descriptors.file(scratch("scratch", statSync(root.writable).size), constants.O_RDWR) }),
    taps: attachment.taps.map((_, index) => descriptors.add(openPassingTap(`${tap.slice(0, -1)}${index}`))),
    volumes: [],
    ports: {
      control: `socket,fd=${descriptors.add(listenUnixStream(path("control")))},server=on,wait=off`,
      stdout: "null",
      stderr: "null",
      stdin: "null",
      exit: "null",
      shell: "null",
      console: "null",
      serial: "null",
    },
    qmp: `socket,fd=${descriptors.add(listenUnixStream(path("qmp")))},server=on,wait=off`,
    memory: {
      kind: "template",
      ram: descriptors.open(scratch(ramName, size.memoryMiB * 2 ** 20), constants.O_RDWR),
    },
  };
  const log = openSync(path("log"), "w", 0o600);
  const user = String(templateUid);
  const confined = ["--reuid", user, "--regid", user, "--clear-groups", "--bounding-set=-all", "--no-new-privs"];
  const child = spawnDetached(
    // It is nobody's wish, so it stands back; and it ends when we do.
    ["setpriv", ...confined, "--pdeathsig", "KILL", "--", ...machineArgs(plan, descriptors.named)],
    { cwd: "/", stdio: ["ignore", "ignore", log, ...descriptors.all] },
  );
  closeSync(log);
  const identity = identifyProcess(child.pid) ?? { pid: child.pid, startTicks: 0 };
  // Its sockets are ours, too: without it they would be there, and nobody would answer.
  const ended = new AbortController();
  void child.exited.then(() =>
    ended.abort(new Fault("failed", `${what}: QEMU ended: ${readText(path("log"))?.trim()}`)),
  );
  const living = { ...call, signal: AbortSignal.any([call.signal, ended.signal]) };
  try {
    await untilWaiting(path("control"), what, living);
    using qmp = await connectQmp(path("qmp"), what, () => isAlive(identity), living);
    await qmp.execute("migrate-set-capabilities", ignoreShared, living);
    const state = openSync(path(stateName), "w", 0o600);
    try {
      await qmp.executeWithDescriptor("getfd", { fdname: "state" }, state, living);
      await qmp.execute("migrate", { uri: "fd:state" }, living);
      for (;;) {
        const { status } = (await qmp.execute("query-migrate", {}, living)) as { readonly status?: string };
        if (status === "completed") break;
        if (status === "failed" || status === "cancelled") throw new Fault("failed", `${what}: QEMU cannot`);
        await call.clock.sleep(5, living.signal);
      }
    } finally {
      closeSync(state);
    }
  } finally {
    signalProcess(identity, "SIGKILL");
    await child.exited;
  }
  for (const name of ["scratch", "control", "qmp", "log"]) rmSync(path(name), { force: true });
  chownSync(path(ramName), 0, 0);
}

/** How long a guest takes at most to be back where it waits, after we spoke to it. */
const settleMs = 500;

async function untilWaiting(path: string, what: string, call: Call): Promise<void> {
  using control = Control.connect(path, what);
  control.write("\nhello\n");
  for (let line = await control.line(call); line !== "ready"; line = await control.line(call)) {
    if (line === undefined) throw new Fault("failed", `${what}: it ended`);
  }
  control[Symbol.dispose]();
  await call.clock.sleep(settleMs, call.signal);
}
