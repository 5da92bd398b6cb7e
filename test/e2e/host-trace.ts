import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
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
  return namesIn("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      // A zombie has no command line: what has ended and only waits to be reaped is not running.
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return [[words[0]?.split("/").at(-1), ...words.slice(1)].join(" ")];
    } catch {
      return [];
    }
  });
}

/** Cgroups of instances, in the hierarchy that has most of them. */
function cgroupsOf(prefix: string): number {
  const counts = ["", ...namesIn("/sys/fs/cgroup")].map(
    (hierarchy) => directoriesIn(`/sys/fs/cgroup/${hierarchy}/${prefix}`).filter((name) => name.includes(".")).length,
  );
  return Math.max(0, ...counts);
}

/** Asked of the kernel: `/sys` may be mounted for another network namespace than ours. */
function links(): readonly string[] {
  const { stdout } = spawnSync("ip", ["-j", "link"], { encoding: "utf8" });
  return (JSON.parse(stdout) as readonly { readonly ifname: string }[]).map(({ ifname }) => ifname);
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
