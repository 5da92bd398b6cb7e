import { closeSync, constants, existsSync, fstatSync, mkdirSync, openSync, readSync, rmSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import { parseQcow2, qcow2HeadBytes } from "../../../base/qcow2.ts";
import { formatSize } from "../../../base/unit.ts";
import { hostFault } from "../../../host/errno.ts";
import { removeIfEmpty, removeTree } from "../../../host/file.ts";
import { run } from "../../../host/process.ts";
import type { KeepsakeFacet } from "../../contract.ts";
import { isRunning } from "../../monitor/monitored.ts";
import type { Runs } from "./runs.ts";
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
    exportFirmware: async (id, path, call) => {
      const { nvramFile } = runs.ground.layout.of(id);
      if (!existsSync(nvramFile)) return false;
      await copyVariables(nvramFile, path, call);
      return true;
    },
    importFirmware: async (id, path, call) => {
      const paths = runs.ground.layout.of(id);
      mkdirSync(paths.keptDir, { recursive: true, mode: 0o700 });
      await copyVariables(path, paths.nvramFile, call);
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
  removeIfEmpty(paths.keptDir);
}

async function inherit(from: InstanceId, to: InstanceId, runs: Runs, call: Call): Promise<void> {
  const [source, target] = [runs.ground.layout.of(from), runs.ground.layout.of(to)];
  if (isRunning(runs.observe(source))) {
    throw new Fault("precondition", `copy what the firmware of ${from} remembers: it is running`, {
      hint: "stop it first",
    });
  }
  if (!existsSync(source.nvramFile)) return;
  mkdirSync(target.keptDir, { recursive: true, mode: 0o700 });
  await copyVariables(source.nvramFile, target.nvramFile, call);
}

/** OVMF has 528 KiB for them. */
const mostVariableBytes = 4 * 2 ** 20;

/** qemu-img opens what an image names, and who broke out of QEMU may have written this one, or whoever made a file of it. */
function requireVariables(path: string, attempted: string): void {
  const head = Buffer.alloc(qcow2HeadBytes);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const sizeBytes = readSync(fd, head, 0, head.length, 0);
    const { backing, virtualSizeBytes } = parseQcow2(head.subarray(0, sizeBytes), fstatSync(fd).size, attempted);
    if (backing !== undefined) {
      throw new Fault("hostile", `${attempted}: they would be read from another file, ${JSON.stringify(backing.file)}`);
    }
    if (virtualSizeBytes <= mostVariableBytes) return;
    throw new Fault("corrupt", `${attempted}: no firmware remembers ${formatSize(virtualSizeBytes)}`);
  } finally {
    closeSync(fd);
  }
}

/**
 * Without the snapshots in it: they are of the other one's disks. A machine that runs may be writing a variable, whose old
 * value counts until the new one is whole: firmware is made for losing its power.
 */
async function copyVariables(source: string, target: string, call: Call): Promise<void> {
  const attempted = "copy the firmware's variables";
  const making = `${target}.new`;
  try {
    requireVariables(source, attempted);
    await rm(making, { force: true });
    const convert = ["qemu-img", "convert", "-q", "-U", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=4096"];
    await run([...convert, source, making], { attempted, endsWithUs: true }, call);
    await rename(making, target);
  } catch (error) {
    await rm(making, { force: true });
    throw hostFault(error, attempted);
  }
}
