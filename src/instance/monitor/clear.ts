import { rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Call } from "../../base/call.ts";
import { errnoOf } from "../../host/errno.ts";
import { endProcess } from "../../host/proc.ts";
import { type Cgroups, emptyCgroup } from "../../host/cgroup.ts";
import type { InstancePaths } from "./layout.ts";
import { observe } from "./observe.ts";
import { namesIn } from "./record.ts";

/**
 * Ends whatever is left of a run and removes all of it but logs and preparation, from any half-made state: a runtime or
 * a monitor killed at any moment, control groups without records, records without processes. Does what `crun delete`
 * does and does not depend on what a runtime wrote down.
 */
export async function clearRun(paths: InstancePaths, cgroups: Cgroups, call: Call): Promise<void> {
  const { monitor, main } = observe(paths, cgroups);
  // A monitor without a main process may be about to get one.
  if (monitor !== undefined && main === undefined) await endProcess(monitor, call);
  await emptyCgroup(cgroups, paths.cgroup, call);
  // Only what has ended writes nothing more.
  if (monitor !== undefined) await endProcess(monitor, call);
  await removeCgroup(paths.cgroup, cgroups, call);
  for (const path of [paths.stateDir, paths.socketLink, paths.bundleDir, paths.etcDir, ...exitFiles(paths)]) {
    rmSync(path, { recursive: true, force: true });
  }
}

/** conmon writes the exit code into a file `<id>.<something>` and renames it; killed in between, it leaves that one. */
function exitFiles({ exitFile }: InstancePaths): string[] {
  const directory = dirname(exitFile);
  const id = basename(exitFile);
  const names = namesIn(directory).filter((name) => name === id || name.startsWith(`${id}.`));
  return names.map((name) => join(directory, name));
}

/** Tries again while processes that were killed still count. */
export async function removeCgroup(path: string, cgroups: Cgroups, call: Call): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      cgroups.remove(path);
      return;
    } catch (error) {
      // A process that was just killed still counts for a moment, and a runtime that was killed may have left one.
      if (errnoOf(error) !== "EBUSY" || tries === 100) throw error;
      await emptyCgroup(cgroups, path, call);
      await call.clock.sleep(Math.min(1 + tries, 20), call.signal);
    }
  }
}
