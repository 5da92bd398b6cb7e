import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { Limits } from "../../instance/contract.ts";
import { valueOf, wordsOf } from "../command-line.ts";
import { parsed } from "../config/bundle.ts";
import { isJson, own } from "../config/shape.ts";
import type { Ground } from "../ground.ts";
import { resourcesText } from "../namespace/checked.ts";
import { requireProgram } from "../namespace/program.ts";
import { shared } from "./contract.ts";
import { ask } from "./control.ts";
import { limitsOf } from "./launch.ts";
import { type MachineFiles, readRecord, writeLaunch } from "./record.ts";

/**
 * The guest keeps its program's memory and number of processes, as a control group of the host does a container's; what
 * is the host's to give (time of its processors, its disks) is the container's around QEMU.
 */
export async function updateLimits(ground: Ground, id: string, files: MachineFiles, root: string): Promise<number> {
  const { line } = ground;
  const text = resourcesText(ground);
  const number = (name: string): number | undefined => {
    const said = valueOf(line.flags, name);
    return said === undefined ? undefined : Number(said);
  };
  const resources =
    text === undefined
      ? {
          memory: { limit: number("memory") },
          pids: { limit: number("pids-limit") },
          cpu: { quota: number("cpu-quota"), period: number("cpu-period") },
        }
      : parsed(text, "resources");
  const { launch } = readRecord(files);
  const limits: Limits = { ...launch.limits, ...limitsOf(resources) };
  const most = highestBytes(files);
  if ((limits.memoryBytes ?? 0) > most) {
    throw new Fault("unsupported", `update ${id}: memory.limit: its machine has ${most} bytes for its program`);
  }
  if (Math.ceil(limits.cpus ?? 1) > Math.max(1, Math.ceil(launch.limits.cpus ?? 1))) {
    throw new Fault("unsupported", `update ${id}: cpu.quota: its machine has fewer processors`);
  }
  const question = `limit ${limits.memoryBytes ?? "max"} ${limits.pids ?? "max"}`;
  const [answer] = await ask(join(files.shared, shared.control), question);
  if (answer !== "ok") throw new Fault("failed", `update ${id}: the guest's kernel refuses`);
  updateContainer(ground, id, root, text === undefined ? undefined : resources);
  writeLaunch(files, { ...launch, limits });
  return 0;
}

/** Names of crun's options, and of fields, that are the container's. */
const ofContainer = /^(cpu|blkio)/;
const fieldsOfContainer = ["cpu", "blockIO"] as const;

function updateContainer({ line, host }: Ground, id: string, root: string, resources: unknown): void {
  const flags = new Map([...line.flags].filter(([name]) => ofContainer.test(name)));
  const kept = fieldsOfContainer.flatMap((name) => {
    const set = Object.entries(own(resources, name) ?? {}).filter(([, value]) => value !== 0 && value !== "");
    return set.length === 0 ? [] : [[name, Object.fromEntries(set)] as const];
  });
  if (flags.size === 0 && kept.length === 0) return;
  const file = kept.length === 0 ? [] : ["--resources=/dev/stdin"];
  const argv = ["--root", root, "update", ...wordsOf(flags), ...file, id];
  const { status, stderr, error } = spawnSync(requireProgram("crun", host), argv, {
    encoding: "utf8",
    input: JSON.stringify(Object.fromEntries(kept)),
    timeout: 60_000,
  });
  if (status !== 0) throw new Fault("failed", `update ${id}: ${error?.message ?? stderr.trim()}`);
}

/** Kernel, page tables and our own processes take so much of a guest. */
const ownMiB = 64;

function highestBytes(files: MachineFiles): number {
  const plan: unknown = JSON.parse(readFileSync(join(files.shared, shared.plan), "utf8"));
  const words = Array.isArray(plan) && !isJson(plan) ? plan.map(String) : [];
  const memoryMiB = Number.parseInt(words[words.indexOf("-m") + 1] ?? "0", 10);
  return (memoryMiB - ownMiB) * 2 ** 20;
}
