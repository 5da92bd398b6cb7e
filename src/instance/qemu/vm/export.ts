import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { type Call, throwIfCancelled } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { run } from "../../../host/process.ts";
import type { MachineLaunch } from "../../contract.ts";
import type { Qmp } from "../qmp.ts";
import { diskNode } from "./arguments.ts";
import { requireSound } from "./block.ts";

interface Exported {
  readonly name: string;
  readonly path: string;
}

/** Of a large disk on a slow one. */
const exportTimeoutMs = 24 * 3_600_000;

/** Copies of the disks of a machine that does not run. */
export async function exportStopped(
  launch: MachineLaunch,
  directory: string,
  call: Call,
): Promise<readonly Exported[]> {
  requireSound(launch);
  const exported: Exported[] = [];
  for (const { name, disk, cdrom } of launch.disks) {
    if (cdrom) continue;
    const path = join(directory, `${name}.qcow2`);
    const argv = ["qemu-img", "convert", "-q", "-f", disk.format, "-O", "qcow2", disk.path, path];
    await run(argv, { attempted: `copy disk ${name}`, timeoutMs: exportTimeoutMs, endsWithUs: true }, call);
    exported.push({ name, path });
  }
  return exported;
}

/** The same of a running one: QEMU copies each disk as it was at one instant, and keeps what the guest overwrites meanwhile. */
export async function exportRunning(
  launch: MachineLaunch,
  directory: string,
  qmp: Qmp,
  call: Call,
): Promise<readonly Exported[]> {
  const disks = launch.disks.filter(({ cdrom }) => !cdrom);
  const nodes = (await qmp.execute("query-named-block-nodes", { flat: true }, call)) as readonly {
    readonly "node-name": string;
    readonly image: { readonly "virtual-size": number };
  }[];
  const targets: string[] = [];
  const fdsets: number[] = [];
  try {
    for (const { name } of disks) {
      const size = nodes.find((node) => node["node-name"] === diskNode(name))?.image["virtual-size"];
      if (size === undefined) throw new Fault("precondition", `copy disk ${name}: it is not plugged in`);
      const path = join(directory, `${name}.qcow2`);
      const create = ["qemu-img", "create", "-q", "-f", "qcow2", path, String(size)];
      await run(create, { attempted: `copy disk ${name}` }, call);
      const fd = openSync(path, "r+");
      try {
        const answer = (await qmp.executeWithDescriptor("add-fd", {}, fd, call)) as { "fdset-id": number };
        fdsets.push(answer["fdset-id"]);
      } finally {
        closeSync(fd);
      }
      const target = targetOf(name);
      const file = { driver: "file", "node-name": `${target}-file`, filename: `/dev/fdset/${fdsets.at(-1)}` };
      await qmp.execute("blockdev-add", { driver: "qcow2", "node-name": target, file }, call);
      targets.push(target);
    }
    await backUp(
      disks.map(({ name }) => name),
      qmp,
      call,
    );
  } finally {
    for (const target of targets) await qmp.execute("blockdev-del", { "node-name": target }, call).catch(() => {});
    for (const fdset of fdsets) await qmp.execute("remove-fd", { "fdset-id": fdset }, call).catch(() => {});
  }
  return disks.map(({ name }) => ({ name, path: join(directory, `${name}.qcow2`) }));
}

async function backUp(names: readonly string[], qmp: Qmp, call: Call): Promise<void> {
  const jobs = new Set(names.map((name) => `export-${targetOf(name)}`));
  const actions = names.map((name) => ({
    type: "blockdev-backup",
    data: {
      "job-id": `export-${targetOf(name)}`,
      device: diskNode(name),
      target: targetOf(name),
      sync: "full",
      "auto-dismiss": false,
    },
  }));
  const events = qmp.events(call);
  try {
    await qmp.execute("transaction", { actions, properties: { "completion-mode": "grouped" } }, call);
    const open = new Set(jobs);
    for await (const { event, data } of events) {
      if (event !== "JOB_STATUS_CHANGE" || data["status"] !== "concluded") continue;
      open.delete(String(data["id"]));
      if (open.size === 0) break;
    }
    throwIfCancelled(call);
  } catch (error) {
    for (const id of jobs) qmp.post("job-cancel", { id });
    throw error;
  }
  const known = (await qmp.execute("query-jobs", {}, call)) as readonly {
    readonly id: string;
    readonly error?: string;
  }[];
  const failed = known.find(({ id, error }) => jobs.has(id) && error !== undefined);
  for (const id of jobs) await qmp.execute("job-dismiss", { id }, call);
  if (failed === undefined) return;
  const reason = /no space left/i.test(failed.error ?? "") ? "exhausted" : "failed";
  throw new Fault(reason, `copy the disks: ${failed.error ?? ""}`);
}

function targetOf(name: string): string {
  return `to-${diskNode(name)}`;
}
