import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { homeBeneath } from "../../src/base/home.ts";

/** What one daemon's root has on the host, counted by looking at the host and not by asking the daemon. */
export interface HostTrace {
  readonly monitors: number;
  readonly resolvers: number;
  readonly namespaces: number;
  readonly links: number;
  readonly cgroups: number;
  /** Overlay roots. */
  readonly roots: number;
  /** EROFS layers, mounted once each. */
  readonly layers: number;
  readonly tables: number;
}

export function traceOf(root: string): HostTrace {
  const { prefix, runDir } = homeBeneath(root);
  const commands = commandLines();
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(` ${root}/`));
  return {
    monitors: commands.filter((words) => words.startsWith("conmon ") && words.includes(`${root}/`)).length,
    resolvers: commands.filter((words) => words.startsWith("dnsmasq ") && words.includes(`${root}/`)).length,
    namespaces: namesIn(`${runDir}/netns`).length,
    links: links().filter((name) => name.startsWith(`${prefix}-`)).length,
    cgroups: cgroupsOf(prefix),
    roots: mounts.filter((line) => / - overlay /.test(line)).length,
    layers: mounts.filter((line) => / - erofs /.test(line)).length,
    tables: tables().filter((name) => name === prefix.replace("-", "_")).length,
  };
}

function commandLines(): readonly string[] {
  return processes().map(({ words }) => words.join(" "));
}

/** Pids of programs called `name` that have an argument with `text` in it. */
export function programs(name: string, text: string): readonly number[] {
  return processes().flatMap(({ pid, words: [program, ...args] }) =>
    program === name && args.some((word) => word.includes(text)) ? [pid] : [],
  );
}

/** What runs: the program's name without its directory, and its arguments. */
function processes(): readonly { readonly pid: number; readonly words: readonly string[] }[] {
  return namesIn("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      // A zombie has no command line: what has ended and only waits to be reaped is not running.
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return [{ pid: Number(pid), words: [words[0]?.split("/").at(-1) ?? "", ...words.slice(1)] }];
    } catch {
      return [];
    }
  });
}

/** Cgroups of instances, in the hierarchy that has most of them. */
function cgroupsOf(prefix: string): number {
  const counts = ["", ...namesIn("/sys/fs/cgroup")].map(
    (hierarchy) => directoriesIn(`/sys/fs/cgroup/${hierarchy}/${prefix}`).filter(isOfInstance).length,
  );
  return Math.max(0, ...counts);
}

/** Those of who serves a machine's volumes are beside the machine's own. */
function isOfInstance(cgroup: string): boolean {
  return cgroup.includes(".") && !cgroup.endsWith(".volumes");
}

/** What machines take of the host besides. */
export interface MachineTrace {
  /** QEMU processes in control groups of this root, whatever they are for. */
  readonly machines: number;
  /** Programs that serve volumes. */
  readonly servers: number;
  readonly taps: number;
  /** Sockets on which QEMU is spoken to. */
  readonly sockets: number;
}

export function machineTraceOf(root: string): MachineTrace {
  const { prefix, runDir } = homeBeneath(root);
  const all = processes();
  const guests = all.filter(({ words }) => words[0]?.startsWith("qemu-system-"));
  // virtiofsd is two processes, one in the namespaces that the other made.
  const servers = all.filter(({ words }) => words[0] === "virtiofsd").map(({ words }) => words.join(" "));
  return {
    machines: guests.filter(({ pid }) => cgroupsOfProcess(pid).includes(`/${prefix}/`)).length,
    servers: new Set(servers.filter((words) => words.includes(`=${root}/`))).size,
    taps: links("tun").filter((name) => name.startsWith(`${prefix}-`)).length,
    sockets: ["microvm", "machine"].flatMap((kind) => socketsBeneath(join(runDir, kind, "instance"))).length,
  };
}

function cgroupsOfProcess(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, "utf8");
  } catch {
    return "";
  }
}

function socketsBeneath(directory: string): readonly string[] {
  try {
    const entries = readdirSync(directory, { withFileTypes: true, recursive: true });
    return entries.filter((entry) => entry.isSocket()).map(({ parentPath, name }) => join(parentPath, name));
  } catch {
    return [];
  }
}

/** Asked of the kernel: `/sys` may be mounted for another network namespace than ours. */
function links(kind?: "tun"): readonly string[] {
  const { stdout } = spawnSync("ip", ["-j", "-d", "link"], { encoding: "utf8" });
  const all = JSON.parse(stdout) as readonly {
    readonly ifname: string;
    readonly linkinfo?: { readonly info_kind?: string };
  }[];
  return all.filter((link) => kind === undefined || link.linkinfo?.info_kind === kind).map(({ ifname }) => ifname);
}

function tables(): readonly string[] {
  const { stdout } = spawnSync("nft", ["list", "tables"], { encoding: "utf8" });
  return stdout.split("\n").map((line) => line.split(" ").at(-1) ?? "");
}

function directoriesIn(path: string): readonly string[] {
  try {
    return readdirSync(path, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
  } catch {
    return [];
  }
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
