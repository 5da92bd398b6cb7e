import { readFileSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { Fault } from "../../base/fault.ts";
import { isJson, own } from "../config/shape.ts";
import { directoriesOf, pidsIn, removeGroup } from "./group.ts";
import type { HostConfig } from "../route.ts";
import type { RuntimeName } from "./program.ts";

/**
 * Takes away what a runtime left that was killed while it made a container: its first process, which waits for a start
 * that never comes, its control groups and its directory. Only processes that are still the runtime's own program are
 * ended: nothing of the container's has run yet, and a control group may be shared.
 */
export function clearHalfMade(root: string, name: RuntimeName, id: string, { programs }: HostConfig): void {
  const directory = join(root, id);
  // The host may call another program by that name: /opt/crun-1.14.
  const names = new Set([name, basename(programs[name] ?? name)]);
  const groups = directoriesOf(groupPathOf(directory, id));
  const patience = 100;
  for (let round = 0; round < patience; round += 1) {
    const left = [...new Set([...groups.flatMap(pidsIn), ...pidsAt(directory)])].filter((pid) => isRuntime(pid, names));
    if (left.length === 0) break;
    if (round === patience - 1) {
      throw new Fault("failed", `delete ${id}: process ${left.join(", ")} does not end`);
    }
    for (const pid of left) kill(pid);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }
  for (const group of groups) removeGroup(group);
  rmSync(directory, { recursive: true, force: true });
}

function groupPathOf(directory: string, id: string): string {
  try {
    const config: unknown = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
    const path = own(isJson(config) ? config["linux"] : undefined, "cgroupsPath");
    if (typeof path === "string" && path !== "" && !path.includes(":")) return path;
  } catch {
    // Not written yet: then there is no group either.
  }
  return `/${id}`;
}

/** Processes that have a file of the container's directory open, as its first one has while it waits. */
function pidsAt(directory: string): readonly number[] {
  return readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const isThere = readdirSync(`/proc/${entry}/fd`).some((fd) => {
        try {
          return readlinkSync(`/proc/${entry}/fd/${fd}`).startsWith(`${directory}/`);
        } catch {
          return false;
        }
      });
      return isThere ? [Number(entry)] : [];
    } catch {
      return [];
    }
  });
}

/**
 * Whether it is still the runtime's own: the link to its program leads to a copy that nobody else sees, but its command
 * line is the one it was called by. A zombie is nobody's.
 */
function isRuntime(pid: number, names: ReadonlySet<string>): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [program = ""] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    return names.has(basename(program)) && stat[stat.lastIndexOf(")") + 2] !== "Z";
  } catch {
    return false;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone.
  }
}
