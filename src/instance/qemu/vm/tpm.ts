import { chownSync, existsSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import type { Cgroups } from "../../../host/cgroup.ts";
import { removeTree } from "../../../host/file.ts";
import { findProgram, run } from "../../../host/process.ts";
import { clearRun } from "../../monitor/clear.ts";
import { observe } from "../../monitor/observe.ts";
import { namesIn } from "../../monitor/record.ts";
import type { Runtime } from "../../monitor/runtime.ts";
import { loadSandbox, makeOwnDirectory } from "../sandbox.ts";
import { tpmPlace } from "./arguments.ts";
import type { MachineLayout } from "./places.ts";

const swtpmProgram = "/usr/bin/swtpm";
const startTimeoutMs = 10_000;

/**
 * Starts a machine's TPM 2.0, which is swtpm in a sandbox of its own under the same user. It ends with QEMU's connection;
 * `clearTpm` ends and forgets one that did not, by the name that derives from the instance's.
 */
export async function startTpm(
  id: InstanceId,
  uid: number,
  runtime: Runtime,
  layout: MachineLayout,
  cgroups: Cgroups,
  call: Call,
): Promise<void> {
  if (!existsSync(swtpmProgram)) {
    throw new Fault("unsupported", `${id} has a TPM, and swtpm is not installed`, {
      hint: "install it: apt-get install swtpm",
    });
  }
  await clearTpm(id, layout, cgroups, call);
  const machine = layout.of(id);
  const tpm = layout.ofTpm(id);
  makeOwnDirectory(machine.tpmSocketDir, uid);
  await makeState(machine.tpmStateDir, uid, call);
  makeOwnDirectory(machine.tpmStateDir, uid);
  const argv = [swtpmProgram, "socket", "--tpm2", "--terminate", "--seccomp", "action=kill"];
  argv.push("--tpmstate", "dir=/state,mode=0600", "--ctrl", `type=unixio,path=${tpmPlace}/tpm.sock,mode=0600`);
  const binds = [
    { source: machine.tpmSocketDir, destination: tpmPlace, readOnly: false },
    { source: machine.tpmStateDir, destination: "/state", readOnly: false },
  ];
  const limits = { memoryBytes: 64 * 2 ** 20, pids: 16 };
  const loaded = await loadSandbox(
    tpm.id,
    { argv, uid, binds, limits, log: { maxBytes: 64 * 1024 } },
    runtime,
    layout,
    call,
  );
  cgroups.adopt(layout.monitorCgroup, loaded.monitor.pid);
  await runtime.release(tpm.id, layout, tpm.paths, call);
  using bounded = withDeadline(call, startTimeoutMs, `start the TPM of ${id}`);
  while (!existsSync(join(machine.tpmSocketDir, "tpm.sock"))) {
    if (observe(tpm.paths, cgroups).main === undefined) {
      throw new Fault("failed", `start the TPM of ${id}: swtpm ended`, {
        hint: `see ${join(tpm.paths.logDir, "log")}`,
      });
    }
    await call.clock.sleep(3, bounded.signal);
  }
}

/**
 * What a new TPM begins as. By itself it has four kinds of hashes switched on, and firmware computes each of them over all
 * that it starts: the usual one is enough. Where the program for that is not installed they stay on, and all works as well.
 */
async function makeState(directory: string, uid: number, call: Call): Promise<void> {
  const [setup = ""] = setupCommand;
  if (existsSync(directory) || findProgram(setup) === undefined) return;
  const making = `${directory}.new`;
  await removeTree(making);
  makeOwnDirectory(making, 0);
  // Nothing in it comes from a guest yet.
  await run([...setupCommand, "--tpmstate", making], { attempted: "make the state of a TPM", endsWithUs: true }, call);
  for (const name of namesIn(making)) chownSync(join(making, name), uid, uid);
  await rename(making, directory);
}

const setupCommand = ["swtpm_setup", "--tpm2", "--pcr-banks", "sha256"];

/** Ends and forgets it, but for its state. Idempotent. */
export async function clearTpm(id: InstanceId, layout: MachineLayout, cgroups: Cgroups, call: Call): Promise<void> {
  const { paths } = layout.ofTpm(id);
  if (!existsSync(paths.dir) && !cgroups.exists(paths.cgroup)) return;
  await clearRun(paths, cgroups, call);
  await removeTree(paths.logDir);
  await removeTree(paths.dir);
  await removeTree(join(layout.of(id).tpmSocketDir, "tpm.sock"));
}
