import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { Limits } from "../../instance/contract.ts";
import { parsed } from "../config/bundle.ts";
import { own } from "../config/shape.ts";
import type { Ground } from "../ground.ts";
import { resourcesText } from "../namespace/checked.ts";
import { findTrees, groupsOf } from "../namespace/group.ts";
import { requireProgram } from "../namespace/program.ts";
import { unsupportedFields } from "../namespace/support.ts";
import { shared } from "./contract.ts";
import { ask } from "./control.ts";
import { limitsOf } from "./launch.ts";
import { type MachineFiles, readRecord, writeLaunch } from "./record.ts";
import { hostResources, resourceFindings } from "./resource.ts";
import { resourcesSaid } from "./resource-option.ts";
import { stateOf } from "./start.ts";

/** `update`: limits of the program are the guest's, what is the host's to give is the container's around QEMU. */
export async function updateLimits(ground: Ground, id: string, files: MachineFiles, root: string): Promise<number> {
  const { line, host } = ground;
  const text = resourcesText(ground);
  const resources = text === undefined ? resourcesSaid(line.flags) : parsed(text, "resources");
  const program = requireProgram("crun", host);
  const { launch } = readRecord(files);
  const limits = limitsAfter(launch.limits, resources);
  const unsupported = [
    ...["l3-cache-schema", "mem-bw-schema"]
      .filter((name) => line.flags.has(name))
      .map((name) => `--${name}: a microVM cannot do it`),
    ...resourceFindings(resources, ""),
    ...unsupportedFields("crun", program, { linux: { resources } }),
    ...sizeFindings(limits, files),
  ];
  if (unsupported.length > 0) throw new Fault("unsupported", `update ${id}: ${unsupported.join("; ")}`);
  const question = `limit ${limits.memoryBytes ?? "max"} ${limits.pids ?? "max"}`;
  const [answer] = await ask(join(files.shared, shared.control), question);
  if (answer !== "ok") throw new Fault("failed", `update ${id}: the guest's kernel refuses`);
  const crun = [program, "--root", root];
  updateContainer([...crun, "update", "--resources=/dev/stdin", id], hostResources(resources));
  if (isNone(resources, "cpu", "quota")) liftQuota(Number(stateOf(crun, id)["pid"]));
  writeLaunch(files, { ...launch, limits });
  return 0;
}

/** What is 0 or not said stays as it is, as runc has it; what is negative, or more than there can be, is no limit. Exported for its test. */
export function limitsAfter(before: Limits, resources: unknown): Limits {
  const { memoryBytes, pids, cpus } = { ...before, ...limitsOf(resources) };
  return {
    ...(memoryBytes === undefined || isNone(resources, "memory", "limit") ? {} : { memoryBytes }),
    ...(pids === undefined || isNone(resources, "pids", "limit") ? {} : { pids }),
    ...(cpus === undefined || isNone(resources, "cpu", "quota") ? {} : { cpus }),
  };
}

function isNone(resources: unknown, part: string, name: string): boolean {
  const value = own(own(resources, part), name);
  return typeof value === "number" && (value < 0 || value >= 2 ** 53);
}

function updateContainer([program = "", ...args]: readonly string[], resources: object): void {
  if (Object.keys(resources).length === 0) return;
  const input = JSON.stringify(resources);
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8", input, timeout: 60_000 });
  if (status !== 0) throw new Fault("failed", `update ${args.at(-1)}: ${error?.message ?? stderr.trim()}`);
}

/** Not by crun, which writes -1 as the largest number there is, and the kernel takes none so large. */
function liftQuota(pid: number): void {
  const trees = findTrees();
  const groups = groupsOf(pid);
  const isVersion1 = trees.has("cpu") && groups.has("cpu");
  const [tree, file, none] = isVersion1 ? ["cpu", "cpu.cfs_quota_us", "-1"] : ["unified", "cpu.max", "max"];
  writeFileSync(join(trees.get(tree) ?? "/sys/fs/cgroup", groups.get(tree) ?? "/", file), none);
}

/** Kernel, page tables and our own processes take so much of a guest. */
const ownMiB = 64;

/** A machine that runs stays as large as it is. */
function sizeFindings(limits: Limits, files: MachineFiles): string[] {
  const plan: unknown = JSON.parse(readFileSync(join(files.shared, shared.plan), "utf8"));
  const words = Array.isArray(plan) ? plan.map(String) : [];
  const after = (option: string): number => Number.parseInt(words[words.indexOf(option) + 1] ?? "0", 10);
  const most = (after("-m") - ownMiB) * 2 ** 20;
  const processors = after("-smp");
  return [
    ...((limits.memoryBytes ?? 0) > most ? [`memory.limit: its machine has ${most} bytes for its program`] : []),
    ...((limits.cpus ?? 0) > processors ? [`cpu.quota: its machine has ${processors} processors`] : []),
  ];
}
