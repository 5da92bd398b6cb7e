import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";
import { listMounts } from "./mount.ts";

/**
 * Control groups, of version 1 (one tree for each controller) and version 2 (one tree for all). A group is named by its
 * path from the top of the tree, `/croft/shop.web.1.12ab34cd`; the runtime makes it, this file reads, changes and
 * removes it. The kernel answers from memory, so all of it is done on the spot.
 */
export interface Cgroups {
  readonly version: 1 | 2;
  /** Whether anything of the group is there. */
  exists(path: string): boolean;
  /** Pids of all processes in it and in the groups beneath it. Empty when it is not there. */
  pids(path: string): number[];
  /** Moves a process into the group, which is made when missing. */
  adopt(path: string, pid: number): void;
  /**
   * A runtime is about to move a process into a group. In version 1 the kernel lets the first who does so wait until every
   * processor has passed a point of rest, some 10 ms; those who follow at once do not wait. So we wait, on another thread,
   * while the runtime is being started. Changes nothing; returns at once.
   */
  announceMove(): void;
  limit(path: string, limits: CgroupLimits): void;
  freeze(path: string): void;
  thaw(path: string): void;
  /** `freezing`: asked for, but not all of its processes have stopped. `thawed` when it is not there, too. */
  freezeState(path: string): "thawed" | "freezing" | "frozen";
  counters(path: string): Counters;
  /** SIGKILL to everything in it, once; what forks meanwhile needs another call. */
  kill(path: string): void;
  /** Removes the group and those beneath it. Throws `failed` (errno EBUSY) while a process is left in it. */
  remove(path: string): void;
}

/** Absent: no limit. */
export interface CgroupLimits {
  /** In cores: 1.5. */
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly pids?: number;
}

export interface Counters {
  readonly cpuNs: bigint;
  /** Without the page cache that the kernel can take back at once, as `docker stats` counts. */
  readonly memoryBytes: number;
  readonly memoryLimitBytes?: number;
  readonly pids: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly oomKills: number;
}

/** How long one turn of the CPU quota is: the kernel's default. */
export const cpuPeriodUs = 100_000;

/** Quota in microseconds of each period for so many cores; the kernel takes no less than one millisecond. */
export function cpuQuotaUs(cpus: number): number {
  return Math.max(1000, Math.round(cpus * cpuPeriodUs));
}

/** Where the trees are: for version 1 a directory for each controller (and `systemd`), for version 2 only `unified`. */
export type Hierarchies = Readonly<Record<string, string>>;

/** The trees of this host, from its mount table. */
export function findHierarchies(): Hierarchies {
  const found: Record<string, string> = {};
  for (const mount of listMounts("/sys/fs/cgroup")) {
    if (mount.type === "cgroup2") found["unified"] = mount.target;
    if (mount.type !== "cgroup") continue;
    for (const option of mount.superOptions.split(",")) {
      if (option.startsWith("name=")) found[option.slice(5)] = mount.target;
      else if (!["rw", "ro", "xattr", "clone_children"].includes(option)) found[option] = mount.target;
    }
  }
  return found;
}

/** `unsupported` when no control groups are mounted. */
export function openCgroups(hierarchies: Hierarchies): Cgroups {
  const { unified, ...named } = hierarchies;
  // In hybrid mode the unified tree is there, too, but has no memory controller.
  if (named["memory"] !== undefined) return new CgroupsV1(hierarchies);
  if (unified !== undefined) return new CgroupsV2(unified);
  throw new Fault("unsupported", "no control groups with a memory controller are mounted at /sys/fs/cgroup", {
    hint: "mount them: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
  });
}

/** Kills until nothing is left in the group; `timeout` after 30 s: processes the kernel cannot end, as on a dead disk. */
export async function emptyCgroup(cgroups: Cgroups, path: string, call: Call): Promise<void> {
  const deadlineMs = call.clock.monotonicMs() + 30_000;
  for (let delayMs = 1; cgroups.pids(path).length > 0; delayMs = Math.min(delayMs * 2, 50)) {
    if (call.clock.monotonicMs() > deadlineMs) {
      throw new Fault("timeout", `kill all processes of ${path}: some do not end`, {
        hint: "they wait for a device or a file system that does not answer",
      });
    }
    cgroups.kill(path);
    await call.clock.sleep(delayMs, call.signal);
  }
}

/**
 * Freezes or thaws and waits until it is so: a process inside a system call stops at its end. Asked again and again, and
 * now and then from the start, as version 1 can stay halfway for ever when a process forks at the wrong moment.
 */
export async function settleFreeze(cgroups: Cgroups, path: string, frozen: boolean, call: Call): Promise<void> {
  const deadlineMs = call.clock.monotonicMs() + 10_000;
  for (let tries = 1; ; tries += 1) {
    if (!frozen || tries % 10 === 0) cgroups.thaw(path);
    if (frozen) cgroups.freeze(path);
    if (cgroups.freezeState(path) === (frozen ? "frozen" : "thawed")) return;
    if (call.clock.monotonicMs() > deadlineMs) {
      cgroups.thaw(path);
      throw new Fault("timeout", `freeze ${path}: some of its processes do not stop`);
    }
    await call.clock.sleep(5, call.signal);
  }
}

class CgroupsV1 implements Cgroups {
  readonly version = 1;
  readonly #trees: readonly string[];
  readonly #by: Hierarchies;

  constructor(hierarchies: Hierarchies) {
    this.#by = hierarchies;
    this.#trees = [...new Set(Object.values(hierarchies))];
  }

  exists(path: string): boolean {
    return this.#trees.some((tree) => existsSync(join(tree, path)));
  }

  pids(path: string): number[] {
    // Any tree tells: the runtime puts a process into all of them. More than one, as a killed runtime did some only.
    return [...new Set(["memory", "pids", "freezer", "systemd"].flatMap((name) => pidsBeneath(this.#in(name, path))))];
  }

  adopt(path: string, pid: number): void {
    // Only where a service manager would look for it, or limit it. (A new cpuset group would have to be filled first.)
    for (const name of ["systemd", "unified", "memory", "pids", "cpu"]) {
      if (this.#by[name] === undefined) continue;
      mkdirSync(this.#in(name, path), { recursive: true });
      write(join(this.#in(name, path), "cgroup.procs"), String(pid));
    }
  }

  announceMove(): void {
    const group = ownGroup("memory");
    if (group === undefined) return;
    // We are in this group already. When it could not be done, the runtime waits itself.
    writeFile(join(this.#in("memory", group), "cgroup.procs"), String(process.pid), { flag: "r+" }).catch(() => {});
  }

  limit(path: string, limits: CgroupLimits): void {
    const quotaUs = limits.cpus === undefined ? -1 : cpuQuotaUs(limits.cpus);
    write(join(this.#in("cpu", path), "cpu.cfs_quota_us"), String(quotaUs));
    write(join(this.#in("pids", path), "pids.max"), limits.pids === undefined ? "max" : String(limits.pids));
    const memory = join(this.#in("memory", path), "memory.limit_in_bytes");
    const withSwap = join(this.#in("memory", path), "memory.memsw.limit_in_bytes");
    const files = existsSync(withSwap) ? [memory, withSwap] : [memory];
    const next = limits.memoryBytes ?? -1;
    // At no moment may the limit with swap be lower than the one without.
    const raises = next === -1 || next > readNumber(memory);
    for (const file of raises ? files.toReversed() : files) write(file, String(next));
  }

  freeze(path: string): void {
    write(join(this.#in("freezer", path), "freezer.state"), "FROZEN");
  }

  thaw(path: string): void {
    write(join(this.#in("freezer", path), "freezer.state"), "THAWED");
  }

  freezeState(path: string): "thawed" | "freezing" | "frozen" {
    const state = read(join(this.#in("freezer", path), "freezer.state"))?.trim();
    return state === "FROZEN" ? "frozen" : state === "FREEZING" ? "freezing" : "thawed";
  }

  counters(path: string): Counters {
    const memory = this.#in("memory", path);
    const limitBytes = readNumber(join(memory, "memory.limit_in_bytes"));
    const cacheBytes = readKeyed(join(memory, "memory.stat")).get("total_inactive_file") ?? 0;
    const io = parseBlkio(read(join(this.#in("blkio", path), "blkio.throttle.io_service_bytes_recursive")) ?? "");
    return {
      cpuNs: BigInt((read(join(this.#in("cpuacct", path), "cpuacct.usage")) ?? "0").trim()),
      memoryBytes: Math.max(0, readNumber(join(memory, "memory.usage_in_bytes")) - cacheBytes),
      // Without a limit the file says the largest number of whole pages.
      ...(limitBytes > 0 && limitBytes < 2 ** 62 ? { memoryLimitBytes: limitBytes } : {}),
      pids: readNumber(join(this.#in("pids", path), "pids.current")),
      ...io,
      oomKills: readKeyed(join(memory, "memory.oom_control")).get("oom_kill") ?? 0,
    };
  }

  kill(path: string): void {
    // A frozen process does not even die.
    if (this.freezeState(path) !== "thawed") this.thaw(path);
    for (const pid of this.pids(path)) killPid(pid);
  }

  remove(path: string): void {
    for (const tree of this.#trees) removeGroup(join(tree, path));
  }

  #in(name: string, path: string): string {
    return join(this.#by[name] ?? "/sys/fs/cgroup/no-such-tree", path);
  }
}

class CgroupsV2 implements Cgroups {
  readonly version = 2;
  readonly #tree: string;

  constructor(tree: string) {
    this.#tree = tree;
  }

  exists(path: string): boolean {
    return existsSync(join(this.#tree, path));
  }

  pids(path: string): number[] {
    return pidsBeneath(join(this.#tree, path));
  }

  adopt(path: string, pid: number): void {
    mkdirSync(join(this.#tree, path), { recursive: true });
    this.#write(path, "cgroup.procs", String(pid));
  }

  announceMove(): void {
    // Here a process is made in its group.
  }

  limit(path: string, limits: CgroupLimits): void {
    const quota = limits.cpus === undefined ? "max" : String(cpuQuotaUs(limits.cpus));
    this.#write(path, "cpu.max", `${quota} ${cpuPeriodUs}`);
    this.#write(path, "memory.max", limits.memoryBytes === undefined ? "max" : String(limits.memoryBytes));
    // As when it was created: a limit on memory is one on memory and swap together. Absent in a kernel without swap.
    if (existsSync(this.#file(path, "memory.swap.max"))) {
      this.#write(path, "memory.swap.max", limits.memoryBytes === undefined ? "max" : "0");
    }
    this.#write(path, "pids.max", limits.pids === undefined ? "max" : String(limits.pids));
  }

  freeze(path: string): void {
    this.#write(path, "cgroup.freeze", "1");
  }

  thaw(path: string): void {
    this.#write(path, "cgroup.freeze", "0");
  }

  freezeState(path: string): "thawed" | "freezing" | "frozen" {
    if (read(this.#file(path, "cgroup.freeze"))?.trim() !== "1") return "thawed";
    return readKeyed(this.#file(path, "cgroup.events")).get("frozen") === 1 ? "frozen" : "freezing";
  }

  counters(path: string): Counters {
    const limit = read(this.#file(path, "memory.max"))?.trim() ?? "max";
    const cacheBytes = readKeyed(this.#file(path, "memory.stat")).get("inactive_file") ?? 0;
    const cpuUs = readKeyed(this.#file(path, "cpu.stat")).get("usage_usec") ?? 0;
    return {
      cpuNs: BigInt(cpuUs) * 1000n,
      memoryBytes: Math.max(0, readNumber(this.#file(path, "memory.current")) - cacheBytes),
      ...(limit === "max" ? {} : { memoryLimitBytes: Number(limit) }),
      pids: readNumber(this.#file(path, "pids.current")),
      ...parseIoStat(read(this.#file(path, "io.stat")) ?? ""),
      oomKills: readKeyed(this.#file(path, "memory.events")).get("oom_kill") ?? 0,
    };
  }

  kill(path: string): void {
    // Linux 5.14 kills a whole tree at once, so that nothing can outrun it by forking.
    if (existsSync(this.#file(path, "cgroup.kill"))) this.#write(path, "cgroup.kill", "1");
    else for (const pid of this.pids(path)) killPid(pid);
  }

  remove(path: string): void {
    removeGroup(join(this.#tree, path));
  }

  #file(path: string, name: string): string {
    return join(this.#tree, path, name);
  }

  #write(path: string, name: string, text: string): void {
    write(this.#file(path, name), text);
  }
}

/** `8:0 Read 4096` lines of version 1, summed over the devices. */
export function parseBlkio(text: string): { readonly readBytes: number; readonly writtenBytes: number } {
  let readBytes = 0;
  let writtenBytes = 0;
  for (const line of text.split("\n")) {
    const [, direction, bytes] = line.split(" ");
    if (direction === "Read") readBytes += Number(bytes);
    if (direction === "Write") writtenBytes += Number(bytes);
  }
  return { readBytes, writtenBytes };
}

/** `8:0 rbytes=4096 wbytes=0 …` lines of version 2, summed over the devices. */
export function parseIoStat(text: string): { readonly readBytes: number; readonly writtenBytes: number } {
  let readBytes = 0;
  let writtenBytes = 0;
  for (const field of text.split(/[ \n]/)) {
    if (field.startsWith("rbytes=")) readBytes += Number(field.slice(7));
    if (field.startsWith("wbytes=")) writtenBytes += Number(field.slice(7));
  }
  return { readBytes, writtenBytes };
}

/** The group of this process in the tree of a controller of version 1. */
function ownGroup(controller: string): string | undefined {
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers = "", path = ""] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers.split(",").includes(controller)) return path;
  }
  return undefined;
}

function pidsBeneath(directory: string): number[] {
  const own = read(join(directory, "cgroup.procs"));
  if (own === undefined) return [];
  const pids = own.split("\n").filter(Boolean).map(Number);
  return [...pids, ...groupsIn(directory).flatMap((name) => pidsBeneath(join(directory, name)))];
}

function groupsIn(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (isGone(error)) return [];
    throw hostFault(error, `list the control groups in ${directory}`);
  }
}

/** Removes a group and those beneath it. Throws `failed` (errno EBUSY) while a process is left in one of them. */
export function removeGroup(directory: string): void {
  for (const name of groupsIn(directory)) removeGroup(join(directory, name));
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!isGone(error)) throw hostFault(error, `remove control group ${directory}`);
  }
}

function killPid(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw hostFault(error, `kill process ${pid}`);
  }
}

function write(file: string, text: string): void {
  try {
    // Never created: what is not there is a controller that is missing, or a group that is gone.
    writeFileSync(file, text, { flag: "r+" });
  } catch (error) {
    throw hostFault(error, `write ${text} to ${file}`);
  }
}

/** Undefined when the group or the controller is not there. */
function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (isGone(error)) return undefined;
    throw hostFault(error, `read ${file}`);
  }
}

function readNumber(file: string): number {
  return Number(read(file)?.trim() ?? 0);
}

/** `key value` lines. */
function readKeyed(file: string): ReadonlyMap<string, number> {
  const lines = (read(file) ?? "").split("\n").filter(Boolean);
  return new Map(
    lines.map((line) => {
      const [key = "", value = "0"] = line.split(" ");
      return [key, Number(value)] as const;
    }),
  );
}

/** ENODEV: the group was removed between opening the file and reading it. */
function isGone(error: unknown): boolean {
  return ["ENOENT", "ENODEV", "ENOTDIR"].includes(errnoOf(error) ?? "");
}
