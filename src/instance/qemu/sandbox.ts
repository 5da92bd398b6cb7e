import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { InstanceId } from "../../base/id.ts";
import { shortHash } from "../../base/id.ts";
import type { Call } from "../../base/call.ts";
import { type CgroupLimits, cpuPeriodUs, cpuQuotaUs, findHierarchies } from "../../host/cgroup.ts";
import { RLIMIT_NOFILE, resourceLimit } from "../../host/kernel.ts";
import type { Layout } from "../monitor/layout.ts";
import { type Loaded, load } from "../monitor/conmon.ts";
import type { Runtime } from "../monitor/runtime.ts";

/**
 * Runs QEMU, and programs that serve it, where they can do no harm when a guest breaks out of them: in a container of an
 * OCI runtime with a user of the instance's own, no capabilities, no network, no host file but the program's own
 * libraries and firmware, and what is named here. Taps and disks come as open descriptors, so nothing has to be made
 * readable for that user. conmon stays with it, writes its output as log and leaves its exit code: it does not depend on
 * the daemon, and the control group named after the instance finds all of it.
 */
export interface Sandbox {
  /** The program, absolute, and its arguments. */
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly uid: number;
  /** Descriptors of ours that it finds open as 3 and following. */
  readonly descriptors?: readonly number[];
  /** What of the host it sees besides programs and libraries. Files and directories. */
  readonly binds?: readonly SandboxBind[];
  /** Device nodes of the host that it may open: `/dev/kvm`. */
  readonly devices?: readonly string[];
  /** Of the process on the host, with what QEMU needs for itself. */
  readonly limits: CgroupLimits;
  /** Keeps its standard input open for whoever attaches, and after they left. */
  readonly stdin?: boolean;
  /** The input ends when whoever attached to it ends it, as that of a program does. */
  readonly stdinEnds?: boolean;
  readonly log: { readonly maxBytes: number };
  /** Memory that a device reads directly cannot be moved: passthrough needs it locked. */
  readonly lockedMemory?: boolean;
}

export interface SandboxBind {
  readonly source: string;
  readonly destination: string;
  readonly readOnly: boolean;
}

/** Users that no account of the host has; far from those that user namespaces are given. */
const firstUid = 0x7000_0000;

/** The user that an instance's QEMU runs as: its own, so that two of them have nothing in common. */
export function sandboxUid(id: InstanceId): number {
  return firstUid + Number.parseInt(shortHash(id, 6), 16);
}

/** A directory that this user alone may use: for the sockets that QEMU listens on. Empty or as it was. */
export function makeOwnDirectory(path: string, uid: number): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  chmodSync(path, 0o700);
  chownSync(path, uid, uid);
}

/**
 * Makes the container of a sandbox and returns when its program waits to be let go (`runtime.release`). Control group,
 * log, exit code and records are those of `layout.of(id)`. On failure the caller clears them away (`clearRun`).
 */
export async function loadSandbox(
  id: InstanceId,
  sandbox: Sandbox,
  runtime: Runtime,
  layout: Layout,
  call: Call,
): Promise<Loaded> {
  const paths = layout.of(id);
  const rootPath = join(paths.dir, "root");
  const places = programPlaces();
  makeRoot(rootPath, places.links);
  const binds = [...places.binds, ...(sandbox.binds ?? [])];
  const config = sandboxConfig(sandbox, { rootPath, binds, cgroupPath: paths.cgroup, ...hostFacts() });
  const monitored = {
    terminal: false,
    stdin: sandbox.stdin === true,
    leaveStdinOpen: sandbox.stdin === true && sandbox.stdinEnds !== true,
    log: sandbox.log,
    descriptors: sandbox.descriptors ?? [],
  };
  return load(id, monitored, config, runtime, layout, call);
}

/** What the host decides. */
interface Surroundings {
  readonly rootPath: string;
  readonly binds: readonly SandboxBind[];
  readonly cgroupPath: string;
  readonly oomScoreAdj: number;
  readonly hardOpenFiles: number;
  readonly swapAccounting: boolean;
}

/** The OCI runtime configuration. Pure but for the numbers of device nodes, which runtimes look up themselves. */
export function sandboxConfig(sandbox: Sandbox, host: Surroundings): object {
  const { limits, uid } = sandbox;
  const devices = (sandbox.devices ?? []).map(deviceNode);
  const openFiles = Math.min(65_536, host.hardOpenFiles);
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid, gid: uid },
      args: sandbox.argv,
      env: Object.entries({ PATH: "/usr/bin", LANG: "C", ...sandbox.env }).map(([name, value]) => `${name}=${value}`),
      cwd: "/",
      capabilities: {},
      rlimits: [
        { type: "RLIMIT_NOFILE", soft: openFiles, hard: openFiles },
        // A core would hold the guest's memory.
        { type: "RLIMIT_CORE", soft: 0, hard: 0 },
        ...(sandbox.lockedMemory === true ? [{ type: "RLIMIT_MEMLOCK", soft: unlimited, hard: unlimited }] : []),
      ],
      noNewPrivileges: true,
      oomScoreAdj: Math.max(0, host.oomScoreAdj),
    },
    root: { path: host.rootPath, readonly: true },
    hostname: "guest",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev", "ro"] },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=64k"] },
      { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "nodev", "mode=1777", "size=16m"] },
      ...host.binds.map(({ source, destination, readOnly }) => ({
        destination,
        type: "bind",
        source,
        options: ["rbind", "rprivate", "nosuid", "nodev", readOnly ? "ro" : "rw"],
      })),
    ],
    linux: {
      // A network namespace without a path is a new one, with nothing in it.
      namespaces: ["pid", "ipc", "uts", "mount", "network"].map((type) => ({ type })),
      cgroupsPath: host.cgroupPath,
      devices: devices.map(({ path, major, minor }) => ({ path, type: "c", major, minor, fileMode: 0o666 })),
      resources: {
        devices: [
          { allow: false, access: "rwm" },
          ...devices.map(({ major, minor }) => ({ allow: true, type: "c", major, minor, access: "rw" })),
        ],
        ...(limits.cpus === undefined ? {} : { cpu: { quota: cpuQuotaUs(limits.cpus), period: cpuPeriodUs } }),
        ...(limits.memoryBytes === undefined
          ? {}
          : { memory: { limit: limits.memoryBytes, ...(host.swapAccounting ? { swap: limits.memoryBytes } : {}) } }),
        ...(limits.pids === undefined ? {} : { pids: { limit: limits.pids } }),
      },
      maskedPaths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/sched_debug", "/proc/timer_list"],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
  };
}

/** RLIM_INFINITY has no exact number in JavaScript; more bytes than any machine has say the same. */
const unlimited = 2 ** 52;

function deviceNode(path: string): { readonly path: string; readonly major: number; readonly minor: number } {
  const { rdev } = lstatSync(path);
  // As glibc's major() and minor() take dev_t apart.
  const number = BigInt(rdev);
  const major = Number(((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn));
  const minor = Number((number & 0xffn) | ((number >> 12n) & ~0xffn));
  return { path, major, minor };
}

/** Programs and libraries of the host: `/usr` as it is, and the links that merged file systems have to it. */
export function programPlaces(): {
  readonly binds: readonly SandboxBind[];
  readonly links: ReadonlyMap<string, string>;
} {
  const binds: SandboxBind[] = [];
  const links = new Map<string, string>();
  for (const path of ["/usr/bin", "/usr/lib", "/usr/libexec", "/usr/lib64", "/usr/share", "/lib", "/lib64"]) {
    const facts = lstatSync(path, { throwIfNoEntry: false });
    if (facts === undefined) continue;
    if (facts.isSymbolicLink()) links.set(path, readlinkSync(path));
    else binds.push({ source: path, destination: path, readOnly: true });
  }
  const cache = "/etc/ld.so.cache";
  if (existsSync(cache)) binds.push({ source: cache, destination: cache, readOnly: true });
  return { binds, links };
}

/** The runtime makes what mounts need in it; links are ours to make. */
export function makeRoot(rootPath: string, links: ReadonlyMap<string, string>): void {
  mkdirSync(rootPath, { recursive: true, mode: 0o755 });
  for (const [path, target] of links) {
    const link = join(rootPath, path);
    mkdirSync(dirname(link), { recursive: true });
    if (lstatSync(link, { throwIfNoEntry: false }) === undefined) symlinkSync(target, link);
  }
}

export function hostFacts(): Pick<Surroundings, "oomScoreAdj" | "hardOpenFiles" | "swapAccounting"> {
  const { memory } = findHierarchies();
  return {
    oomScoreAdj: Number(readFileSync("/proc/self/oom_score_adj", "utf8")),
    hardOpenFiles: resourceLimit(RLIMIT_NOFILE).hard,
    swapAccounting: memory === undefined || existsSync(join(memory, "memory.memsw.limit_in_bytes")),
  };
}
