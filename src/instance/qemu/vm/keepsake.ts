import { existsSync, mkdirSync, rmdirSync, rmSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import { errnoOf, hostFault } from "../../../host/errno.ts";
import { removeTree } from "../../../host/file.ts";
import { run } from "../../../host/process.ts";
import type { KeepsakeFacet } from "../../contract.ts";
import type { MachinePaths } from "./places.ts";
import { isRunning, type Runs } from "./runs.ts";
import { dropSuspended } from "./saved-state.ts";

/** What of a machine stays when it is removed: the variables of its firmware, its TPM's state, the list of snapshots. */
export function keepsakeOf(runs: Runs): KeepsakeFacet {
  return {
    forget: (id) => {
      return runs.turns.take(id, () => removeTree(runs.ground.layout.of(id).keptDir));
    },
    inherit: (from, to, call) => {
      return runs.turns.take(from, () => inherit(from, to, runs, call));
    },
  };
}

/** Of what is kept, that which means nothing without the machine: a memory to go on with, and a request that was done. */
export async function dropRun(id: InstanceId, runs: Runs, call: Call): Promise<void> {
  const paths = runs.ground.layout.of(id);
  const { record } = runs.observe(paths);
  // A disk that is gone or broken holds up nothing: what is in it takes room there, and is found by nobody.
  if (record !== undefined) await dropSuspended(record.launch, paths, call).catch(() => {});
  rmSync(paths.suspendedFile, { force: true });
  rmSync(paths.revertFile, { force: true });
  try {
    if (existsSync(paths.keptDir)) rmdirSync(paths.keptDir);
  } catch (error) {
    if (errnoOf(error) !== "ENOTEMPTY") throw hostFault(error, `remove ${id}`);
  }
}

async function inherit(from: InstanceId, to: InstanceId, runs: Runs, call: Call): Promise<void> {
  const [source, target] = [runs.ground.layout.of(from), runs.ground.layout.of(to)];
  if (isRunning(runs.observe(source))) {
    throw new Fault("precondition", `copy what the firmware of ${from} remembers: it is running`, {
      hint: "stop it first",
    });
  }
  if (!existsSync(source.nvramFile)) return;
  await copyVariables(source, target, call);
}

/** Without the snapshots in it: they are of the other one's disks. */
async function copyVariables(source: MachinePaths, target: MachinePaths, call: Call): Promise<void> {
  const attempted = "copy the firmware's variables";
  const making = `${target.nvramFile}.new`;
  try {
    mkdirSync(target.keptDir, { recursive: true, mode: 0o700 });
    await rm(making, { force: true });
    const convert = ["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=4096"];
    await run([...convert, source.nvramFile, making], { attempted, endsWithUs: true }, call);
    await rename(making, target.nvramFile);
  } catch (error) {
    await rm(making, { force: true });
    throw hostFault(error, attempted);
  }
}
