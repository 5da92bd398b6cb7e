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
  utimesSync,
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
import { readSparse, type SparseContent, writeSparse } from "../../../host/sparse.ts";
import { openPassingTap } from "../../../host/tap.ts";
import { listenUnixStream } from "../../../host/unix-listen.ts";
import type { ProgramLaunch } from "../../contract.ts";
import { namesIn, readText } from "../../monitor/record.ts";
import { qemuProgram } from "../accelerator.ts";
import { guestSize } from "../guest/size.ts";
import { connectQmp } from "../qmp.ts";
import { hostTscKhz } from "../tsc.ts";
import { blankMark } from "./blank-disk.ts";
import { Control, guestFault } from "./control.ts";
import { Descriptors } from "./descriptors.ts";
import { ignoreShared, machineArgs, type MachinePlan } from "./machine.ts";
import type { Parts } from "./start.ts";

/**
 * Guests that do not boot: the memory of one that has booted up to where it waits for its launch is kept, and others go on
 * from there. It holds the kernel and what the image's layers begin with, no launch, no secret, no identity. All who go on
 * from it share its pages until they write to them.
 *
 * The disk of an instance that never ran is as blank as any other such. So the one whose memory is kept has put its root
 * together already, on a blank disk that is kept with it, and whoever goes on gets a disk like that one.
 */
export interface SavedMemory {
  readonly key: string;
  /** A descriptor of ours, of memory that nobody can change. */
  readonly ram: number;
  /** The devices. */
  readonly statePath: string;
  /** What is to be on the disk of whoever goes on from it; absent for those who have something on their disk, or none. */
  readonly disk?: SparseContent;
}

/** What a launch, its parts and its disk have in common with others that can go on from the same memory. */
export interface WarmKey {
  readonly name: string;
  /** Where the root is put together already in the memory that is kept, as the guest's scripts call it. */
  readonly assembled?: "disk" | "memory";
  /** For `disk`: of what kind its disk was, see `blankMark`. */
  readonly blank?: string;
}

/** More than these are not kept: each is some 70 MB on disk. */
const maxKept = 12;

/** A file system in which nothing is but what was mounted holds less. */
const maxDiskBytes = 16 * 2 ** 20;

/** Pages that were in use lately stay in memory; they are read again from disk when they are needed after that. */
const forgetMemoryMs = 15 * 60_000;

/** A boot without KVM on a busy machine, behind others. */
const makeTimeoutMs = 300_000;

const ramName = "ram";
const stateName = "state";
const diskName = "disk";

interface Loaded {
  readonly ram: Promise<number>;
  readonly disk: SparseContent | undefined;
  readonly stopForgetting: () => void;
}

export class WarmStarts {
  /** Directories that are being filled, by any engine of this process: tests have several for one home. */
  static readonly #underWay = new Set<string>();
  readonly #home: Home;
  readonly #directory: string;
  readonly #loaded = new Map<string, Loaded>();
  /** Being made, or waiting for its turn: a guest that boots beside others makes all of them slower. */
  readonly #making = new Map<string, Promise<void>>();
  #turn: Promise<void> = Promise.resolve();
  /** What is on a blank disk, by its mark: that is what a memory is made with. A home makes them all alike. */
  #blank: { readonly mark: string; readonly disk: SparseContent } | undefined;

  constructor(home: Home) {
    this.#home = home;
    this.#directory = join(home.libDir, "guest", "warm");
    this.#clearUnfinished();
  }

  /** What of a launch, its parts and its disk the guest has seen when it waits; undefined for one that cannot be saved. */
  keyOf(launch: ProgramLaunch, parts: Parts): WarmKey | undefined {
    const { root, attachment, mounts } = launch;
    if (launch.warmStart === false || root.kind !== "block" || attachment.kind !== "tap") return undefined;
    // Whoever serves a directory cannot hand it on.
    if (mounts.some(({ kind }) => kind === "bind")) return undefined;
    const qemu = statSync(qemuProgram);
    const blank = root.writable === undefined ? undefined : blankMark(root.writable);
    const seen = {
      version: 5,
      qemu: [qemu.ino, qemu.size, qemu.mtimeMs],
      accelerator: parts.accelerator.name,
      kernel: parts.kernelPath,
      initramfs: parts.initramfsPath,
      size: guestSize(launch.limits),
      layers: root.layers.map(({ digest }) => digest),
      writableBytes: root.writable === undefined ? 0 : statSync(root.writable).size,
      ...(blank === undefined ? {} : { blank }),
      nics: attachment.taps.length,
      tscKhz: hostTscKhz() ?? 0,
    };
    const name = shortHash(canonicalJson(seen), 16);
    if (root.writable === undefined) return { name, assembled: "memory" };
    return blank === undefined ? { name } : { name, assembled: "disk", blank };
  }

  /** `writable` is the disk of whoever asks, not written to yet. */
  async find(
    { name: key, blank }: WarmKey,
    writable: string | undefined,
    call: Call,
  ): Promise<SavedMemory | undefined> {
    const directory = join(this.#directory, key);
    if (statSync(join(directory, stateName), { throwIfNoEntry: false }) === undefined) {
      if (blank !== undefined && writable !== undefined && this.#blank?.mark !== blank) {
        this.#blank = { mark: blank, disk: readSparse(writable, maxDiskBytes) };
      }
      return undefined;
    }
    try {
      const known = this.#loaded.get(key);
      known?.stopForgetting();
      const readDisk = (): SparseContent => readSparse(join(directory, diskName), maxDiskBytes);
      const disk = known?.disk ?? (blank === undefined ? undefined : readDisk());
      const ram = known?.ram ?? sealedCopy(join(directory, ramName), "croft-guest", call);
      const stopForgetting = call.clock.after(forgetMemoryMs, () => void this.#unload(key));
      this.#loaded.set(key, { ram, disk, stopForgetting });
      const descriptor = await ram;
      const now = new Date(call.clock.nowMs());
      utimesSync(directory, now, now);
      const statePath = join(directory, stateName);
      return { key, ram: descriptor, statePath, ...(disk === undefined ? {} : { disk }) };
    } catch (error) {
      this.#loaded.get(key)?.stopForgetting();
      this.#loaded.delete(key);
      // One that cannot be read is made anew.
      if (!call.signal.aborted) rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Makes what `find` did not find, one after the other; nobody waits for it. */
  learn(key: WarmKey, launch: ProgramLaunch, parts: Parts, call: Call): void {
    if (this.#making.has(key.name) || this.#making.size >= maxKept) return;
    const blank = this.#blank?.mark === key.blank ? this.#blank?.disk : undefined;
    // Another daemon began that one.
    if (key.assembled === "disk" && blank === undefined) return;
    this.#turn = this.#turn
      .then(() => this.#make(key, blank, launch, parts, call))
      // The next start tries again.
      .catch(() => {})
      .finally(() => this.#making.delete(key.name));
    this.#making.set(key.name, this.#turn);
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

  async #make(
    key: WarmKey,
    blank: SparseContent | undefined,
    launch: ProgramLaunch,
    parts: Parts,
    call: Call,
  ): Promise<void> {
    const { name } = key;
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    this.#clearUnfinished();
    const directory = join(this.#directory, `${name}.new`);
    if (WarmStarts.#underWay.has(directory)) return;
    WarmStarts.#underWay.add(directory);
    try {
      mkdirSync(directory, { mode: 0o700 });
      using bounded = withDeadline(call, makeTimeoutMs, `save the memory of a guest for ${launch.id}`);
      const template = { directory, tap: linkName(this.#home, `warm ${name}`), assembled: key.assembled, blank };
      await saveBooted(template, launch, parts, bounded);
      for (const file of readdirSync(directory)) syncFile(join(directory, file));
      await rename(directory, join(this.#directory, name));
    } finally {
      rmSync(directory, { recursive: true, force: true });
      WarmStarts.#underWay.delete(directory);
    }
    this.#dropOldest();
    await this.find(key, undefined, call);
  }

  /** What a daemon left that was killed: its QEMU died with it. There is one daemon for a home. */
  #clearUnfinished(): void {
    for (const name of namesIn(this.#directory)) {
      const path = join(this.#directory, name);
      if (name.endsWith(".new") && !WarmStarts.#underWay.has(path)) rmSync(path, { recursive: true, force: true });
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

function empty(sizeBytes: number): SparseContent {
  return { sizeBytes, pieces: [] };
}

interface Template {
  readonly directory: string;
  readonly tap: string;
  readonly assembled: WarmKey["assembled"];
  /** What its disk begins as. */
  readonly blank: SparseContent | undefined;
}

/** Boots a guest to where it waits, and writes its memory, its devices and its disk to the directory. It ends with us. */
async function saveBooted(
  { directory, tap, assembled, blank }: Template,
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
  const made = (name: string, content: SparseContent): string => {
    // QEMU opens the memory by its name.
    writeSparse(path(name), content, templateUid, templateUid);
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
      : {
          writable: descriptors.file(made(diskName, blank ?? empty(statSync(root.writable).size)), constants.O_RDWR),
        }),
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
      ram: descriptors.open(made(ramName, empty(size.memoryMiB * 2 ** 20)), constants.O_RDWR),
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
    await untilWaiting(path("control"), what, assembled, living);
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
  for (const name of ["control", "qmp", "log"]) rmSync(path(name), { force: true });
  if (assembled !== "disk") rmSync(path(diskName), { force: true });
  for (const name of readdirSync(directory)) chownSync(path(name), 0, 0);
}

/** How long a guest takes at most to be back where it waits, after we spoke to it. */
const settleMs = 500;

async function untilWaiting(path: string, what: string, assembled: WarmKey["assembled"], call: Call): Promise<void> {
  using control = Control.connect(path, what);
  const until = async (wanted: string): Promise<void> => {
    for (let line = await control.line(call); line !== wanted; line = await control.line(call)) {
      if (line === undefined) throw new Fault("failed", `${what}: it ended`);
      if (line.startsWith("fault ")) throw guestFault(what, line);
    }
  };
  control.write("\nhello\n");
  await until("ready");
  control.write(`prepare ${assembled ?? "nothing"}\n`);
  await until("prepared");
  control[Symbol.dispose]();
  await call.clock.sleep(settleMs, call.signal);
}
