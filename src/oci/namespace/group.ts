import { existsSync, readFileSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";

/** Control groups of one container, read and cleared. Plain files, as it runs inside the compiled program. */

/** Mount points of the trees: by controller for version 1, `unified` for version 2. */
export function findTrees(): ReadonlyMap<string, string> {
  const trees = new Map<string, string>();
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const point = left.split(" ")[4] ?? "";
    const [type, , options = ""] = right.split(" ");
    if (type === "cgroup2") trees.set("unified", point);
    if (type !== "cgroup") continue;
    for (const option of options.split(",")) trees.set(option.replace(/^name=/, ""), point);
  }
  return trees;
}

/** The groups of a process: path in its tree, by controller. */
export function groupsOf(pid: number): ReadonlyMap<string, string> {
  const groups = new Map<string, string>();
  for (const line of readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n")) {
    const [, controllers = "", ...path] = line.split(":");
    for (const controller of controllers.split(",")) {
      groups.set(controller === "" ? "unified" : controller.replace(/^name=/, ""), path.join(":"));
    }
  }
  return groups;
}

/** Directories of the group `path` in every tree that has it. */
export function directoriesOf(path: string): readonly string[] {
  const points = new Set(findTrees().values());
  return [...points].map((point) => join(point, path)).filter((directory) => existsSync(directory));
}

/** Pids in a group's directory and beneath it. */
export function pidsIn(directory: string): readonly number[] {
  try {
    const own = readFileSync(join(directory, "cgroup.procs"), "utf8").split("\n").filter(Boolean).map(Number);
    return [...own, ...groupsIn(directory).flatMap((group) => pidsIn(join(directory, group)))];
  } catch {
    return [];
  }
}

/** Removes empty groups from the bottom up; one in which something runs stays. */
export function removeGroup(directory: string): void {
  for (const group of groupsIn(directory)) removeGroup(join(directory, group));
  try {
    rmdirSync(directory);
  } catch {
    // Something is in it, or it is gone.
  }
}

function groupsIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
  } catch {
    return [];
  }
}
