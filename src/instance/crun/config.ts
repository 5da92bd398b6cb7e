import { posix } from "node:path";
import type { ProgramLaunch, Limits } from "../contract.ts";
import { ociCapabilities, resolveCapabilities } from "../monitor/capability.ts";
import { cpuPeriodUs, cpuQuotaUs } from "../../host/cgroup.ts";
import { type SeccompProfile, seccompProfile } from "./seccomp.ts";
import type { ResolvedUser } from "./user.ts";

/** The OCI runtime configuration of an instance: `config.json`. Pure; paths were resolved before (`mountpoint.ts`). */
export interface OciConfig {
  readonly ociVersion: string;
  readonly process: OciProcess;
  readonly root: { readonly path: string; readonly readonly: boolean };
  readonly hostname: string;
  readonly mounts: readonly OciMount[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly linux: Readonly<Record<string, unknown>> & {
    readonly namespaces: readonly { readonly type: string; readonly path?: string }[];
    readonly seccomp: SeccompProfile;
  };
}

export interface OciProcess {
  readonly terminal: boolean;
  readonly consoleSize?: { readonly height: number; readonly width: number };
  readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: Readonly<Record<string, readonly string[]>>;
  readonly rlimits: readonly Rlimit[];
  readonly noNewPrivileges: true;
  readonly oomScoreAdj: number;
}

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface Rlimit {
  readonly type: string;
  readonly soft: number;
  readonly hard: number;
}

/** What the host decides, and not the launch. */
export interface HostFacts {
  /** As `process.arch` names it. */
  readonly arch: string;
  /** What this process could hand on; a runtime refuses to give more. */
  readonly capabilities: readonly string[];
  readonly openFiles: { readonly hard: number };
  /** Of this process. Lowering it takes a privilege, so it is the least an instance can have. */
  readonly oomScoreAdj: number;
  /** Whether swap is accounted: only then can it be limited. */
  readonly swapAccounting: boolean;
}

/** The results of looking into the image's own tree. */
export interface Resolved {
  readonly user: ResolvedUser;
  readonly workdir: string;
  /** Binds, tmpfs and injected files at link-free destinations, outer ones first. */
  readonly mounts: readonly OciMount[];
  readonly cgroupPath: string;
}

/** The part of a launch that the configuration is made of. */
export type Launched = Pick<
  ProgramLaunch,
  "root" | "attachment" | "hostname" | "argv" | "env" | "terminal" | "readOnlyRoot" | "capabilities" | "limits"
>;

export function ociConfig(launch: Launched, resolved: Resolved, host: HostFacts): OciConfig {
  const granted = resolveCapabilities(launch.capabilities).filter((name) => host.capabilities.includes(name));
  return {
    // The oldest runtimes in use refuse a newer number, and nothing newer is needed.
    ociVersion: "1.0.2",
    process: {
      terminal: launch.terminal,
      user: ociUser(resolved.user),
      args: launch.argv,
      env: environment(launch, resolved.user),
      cwd: resolved.workdir,
      capabilities: ociCapabilities(granted, launch.capabilities.add, resolved.user.uid === 0),
      rlimits: rlimits(host),
      noNewPrivileges: true,
      oomScoreAdj: Math.max(0, host.oomScoreAdj),
    },
    root: { path: launch.root.kind === "directory" ? launch.root.path : "", readonly: launch.readOnlyRoot },
    hostname: launch.hostname,
    mounts: [...kernelFileSystems(resolved.mounts), ...resolved.mounts],
    linux: {
      namespaces: [
        { type: "pid" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "cgroup" },
        { type: "network", path: launch.attachment.kind === "netns" ? launch.attachment.path : "" },
      ],
      cgroupsPath: resolved.cgroupPath,
      resources: resources(launch.limits, host),
      sysctl: {
        // In a network of its own any user may open any port, and ping: nothing of the host is reached by it.
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
      },
      seccomp: seccompProfile(granted, host.arch),
      maskedPaths: [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
      ],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
  };
}

export function ociUser(user: ResolvedUser): OciProcess["user"] {
  return { uid: user.uid, gid: user.gid, additionalGids: user.groups };
}

/** What programs rely on, and the image may leave out; the launch's own values win. */
export function environment(
  launch: Pick<ProgramLaunch, "env" | "hostname" | "terminal">,
  user: ResolvedUser,
): string[] {
  const env: Record<string, string> = {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOSTNAME: launch.hostname,
    HOME: user.home,
    ...(launch.terminal ? { TERM: "xterm" } : {}),
    ...launch.env,
  };
  return Object.entries(env).map(([name, value]) => `${name}=${value}`);
}

/** Soft limits as a login has them; programs that need more raise them themselves, up to the hard ones. */
function rlimits(host: HostFacts): Rlimit[] {
  const hardFiles = Math.min(524_288, host.openFiles.hard);
  return [{ type: "RLIMIT_NOFILE", soft: Math.min(1024, hardFiles), hard: hardFiles }];
}

function resources(limits: Limits, host: HostFacts): Record<string, unknown> {
  return {
    devices: [{ allow: false, access: "rwm" }],
    ...(limits.cpus === undefined ? {} : { cpu: { quota: cpuQuotaUs(limits.cpus), period: cpuPeriodUs } }),
    // The same number for memory with swap: a limit on memory is one on both together.
    ...(limits.memoryBytes === undefined
      ? {}
      : { memory: { limit: limits.memoryBytes, ...(host.swapAccounting ? { swap: limits.memoryBytes } : {}) } }),
    ...(limits.pids === undefined ? {} : { pids: { limit: limits.pids } }),
  };
}

function kernelFileSystems(asked: readonly OciMount[]): OciMount[] {
  const standard: OciMount[] = [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=64k"] },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
      destination: "/dev/shm",
      type: "tmpfs",
      source: "shm",
      options: ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"],
    },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: ["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
  ];
  return standard.filter(({ destination }) => !asked.some((mount) => mount.destination === destination));
}

/** A bind of a directory or file. Nothing in a volume is a device or gains privileges by its mode bits. */
export function bindMount(source: string, destination: string, readOnly: boolean): OciMount {
  const options = ["rbind", "rprivate", "nosuid", "nodev", readOnly ? "ro" : "rw"];
  return { destination, type: "bind", source, options };
}

export function tmpfsMount(destination: string, sizeBytes: number | undefined, mode: number | undefined): OciMount {
  const size = sizeBytes === undefined ? [] : [`size=${sizeBytes}`];
  const options = ["nosuid", "nodev", `mode=${(mode ?? 0o1777).toString(8)}`, ...size];
  return { destination, type: "tmpfs", source: "tmpfs", options };
}

/** How many names lie on the way: sorted by this, outer mounts come before those in them. */
export function depth(path: string): number {
  return posix.normalize(path).split("/").filter(Boolean).length;
}
