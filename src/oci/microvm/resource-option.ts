import { Fault } from "../../base/fault.ts";
import { type Said, valueOf } from "../command-line.ts";
import { refused } from "../config/bundle.ts";
import { resourcesShape } from "../config/schema.ts";
import { findingsOf, type Json } from "../config/shape.ts";

/** Options of `update`, each with the field of `linux.resources` that it stands for. */
const fields: Readonly<Record<string, readonly [part: string, name: string, read: (said: string) => unknown]>> = {
  "blkio-weight": ["blockIO", "weight", whole],
  "cpu-period": ["cpu", "period", whole],
  "cpu-quota": ["cpu", "quota", whole],
  "cpu-burst": ["cpu", "burst", whole],
  "cpu-share": ["cpu", "shares", whole],
  "cpu-idle": ["cpu", "idle", whole],
  "cpu-rt-period": ["cpu", "realtimePeriod", whole],
  "cpu-rt-runtime": ["cpu", "realtimeRuntime", whole],
  "cpuset-cpus": ["cpu", "cpus", (said) => said],
  "cpuset-mems": ["cpu", "mems", (said) => said],
  memory: ["memory", "limit", bytes],
  "memory-reservation": ["memory", "reservation", bytes],
  "memory-swap": ["memory", "swap", bytes],
  "kernel-memory": ["memory", "kernel", bytes],
  "kernel-memory-tcp": ["memory", "kernelTCP", bytes],
  "pids-limit": ["pids", "limit", whole],
};

/** What the options of `update` ask for, as a file for `--resources` would have it. */
export function resourcesSaid(flags: Said): Json {
  const resources: Record<string, Record<string, unknown>> = {};
  for (const [option, [part, name, read]] of Object.entries(fields)) {
    const said = valueOf(flags, option);
    if (said === undefined || said === "") continue;
    const value = read(said);
    if (value === undefined) throw new Fault("invalid", `--${option} ${said}: expected a number`);
    resources[part] = { ...resources[part], [name]: value };
  }
  const findings = findingsOf(resourcesShape, resources);
  if (findings.length > 0) throw refused("update", findings);
  return resources;
}

function whole(said: string): number | undefined {
  return /^[+-]?\d+$/.test(said) ? Number(said) : undefined;
}

/** `512M`, `1.5 GiB`, `-1`: as runc takes sizes, whose units all are powers of 1024. */
function bytes(said: string): number | undefined {
  if (said === "-1") return -1;
  const found = /^(\d+(?:\.\d+)?) ?(?:([kmgtp])i?)?b?$/i.exec(said);
  if (found === null) return undefined;
  return Math.floor(Number(found[1]) * 1024 ** " kmgtp".indexOf((found[2] ?? " ").toLowerCase()));
}
