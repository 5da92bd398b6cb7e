import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import { valueOf } from "../command-line.ts";
import { isJson, own } from "../config/shape.ts";
import { type Ground, print } from "../ground.ts";
import { findTrees, groupsOf } from "./group.ts";

/** `events` for a runtime that has none: counters of the container's control groups, in the form of runc's. */
export function events(ground: Ground, program: string, root: string, id: string): number {
  const { line } = ground;
  const intervalMs = durationMs(valueOf(line.flags, "interval") ?? "5s");
  const isOnce = line.flags.has("stats");
  let oomKills: number | undefined;
  for (;;) {
    const pid = runningPid(program, root, id);
    if (pid === undefined) {
      if (isOnce || oomKills === undefined) throw new Fault("precondition", `events: container "${id}" is not running`);
      return 0;
    }
    const reading = read(pid);
    if (oomKills !== undefined && reading.oomKills > oomKills) print(`${JSON.stringify({ type: "oom", id })}\n`);
    oomKills = reading.oomKills;
    print(`${JSON.stringify({ type: "stats", id, data: reading.data })}\n`);
    if (isOnce) return 0;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, intervalMs);
  }
}

function runningPid(program: string, root: string, id: string): number | undefined {
  const argv = ["--root", root, "state", id];
  const { status, stdout } = spawnSync(program, argv, { encoding: "utf8", timeout: 30_000 });
  if (status !== 0) return undefined;
  const state: unknown = JSON.parse(stdout);
  const pid = own(state, "pid");
  return isJson(state) && state["status"] !== "stopped" && typeof pid === "number" && pid > 0 ? pid : undefined;
}

/** `5s`, `500ms`, `1m`: as Go writes durations. */
export function durationMs(text: string): number {
  const found = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text);
  const unit = { ms: 1, s: 1000, m: 60_000 }[found?.[2] ?? ""];
  if (unit === undefined) throw new Fault("invalid", `--interval ${text}: expected a duration such as 5s`);
  return Math.max(1, Number(found?.[1]) * unit);
}

interface Reading {
  readonly data: object;
  readonly oomKills: number;
}

function read(pid: number): Reading {
  const trees = findTrees();
  const groups = groupsOf(pid);
  const directory = (controller: string): string | undefined => {
    const point = trees.get(controller);
    const path = groups.get(controller);
    return point === undefined || path === undefined ? undefined : join(point, path);
  };
  const isVersion1 = directory("memory") !== undefined;
  return isVersion1 ? readVersion1(directory) : readVersion2(directory("unified") ?? "/sys/fs/cgroup");
}

function readVersion1(directory: (controller: string) => string | undefined): Reading {
  const number = (controller: string, file: string): number => numberIn(directory(controller), file);
  const memory = (prefix: string) => ({
    limit: number("memory", `memory.${prefix}limit_in_bytes`),
    usage: number("memory", `memory.${prefix}usage_in_bytes`),
    max: number("memory", `memory.${prefix}max_usage_in_bytes`),
    failcnt: number("memory", `memory.${prefix}failcnt`),
  });
  const raw = fieldsIn(directory("memory"), "memory.stat");
  const throttling = fieldsIn(directory("cpu"), "cpu.stat");
  const oom = fieldsIn(directory("memory"), "memory.oom_control");
  return {
    oomKills: oom["oom_kill"] ?? 0,
    data: {
      cpu: {
        usage: {
          total: number("cpuacct", "cpuacct.usage"),
          percpu: textIn(directory("cpuacct"), "cpuacct.usage_percpu").trim().split(/\s+/).filter(Boolean).map(Number),
          kernel: number("cpuacct", "cpuacct.usage_sys"),
          user: number("cpuacct", "cpuacct.usage_user"),
        },
        throttling: {
          periods: throttling["nr_periods"] ?? 0,
          throttledPeriods: throttling["nr_throttled"] ?? 0,
          throttledTime: throttling["throttled_time"] ?? 0,
        },
      },
      memory: {
        cache: raw["cache"] ?? 0,
        usage: memory(""),
        swap: memory("memsw."),
        kernel: memory("kmem."),
        kernelTCP: memory("kmem.tcp."),
        raw,
      },
      pids: { current: number("pids", "pids.current"), limit: number("pids", "pids.max") },
      blkio: { ioServiceBytesRecursive: blkioIn(directory("blkio"), "blkio.throttle.io_service_bytes_recursive") },
      hugetlb: {},
      intel_rdt: {},
      network_interfaces: null,
    },
  };
}

function readVersion2(directory: string): Reading {
  const cpu = fieldsIn(directory, "cpu.stat");
  const raw = fieldsIn(directory, "memory.stat");
  const usage = { limit: numberIn(directory, "memory.max"), usage: numberIn(directory, "memory.current"), failcnt: 0 };
  return {
    oomKills: fieldsIn(directory, "memory.events")["oom_kill"] ?? 0,
    data: {
      cpu: {
        usage: {
          total: (cpu["usage_usec"] ?? 0) * 1000,
          kernel: (cpu["system_usec"] ?? 0) * 1000,
          user: (cpu["user_usec"] ?? 0) * 1000,
        },
        throttling: {
          periods: cpu["nr_periods"] ?? 0,
          throttledPeriods: cpu["nr_throttled"] ?? 0,
          throttledTime: (cpu["throttled_usec"] ?? 0) * 1000,
        },
      },
      memory: { cache: raw["file"] ?? 0, usage, raw },
      pids: { current: numberIn(directory, "pids.current"), limit: numberIn(directory, "pids.max") },
      blkio: {},
      hugetlb: {},
      intel_rdt: {},
      network_interfaces: null,
    },
  };
}

function textIn(directory: string | undefined, file: string): string {
  if (directory === undefined) return "";
  try {
    return readFileSync(join(directory, file), "utf8");
  } catch {
    // A counter that this kernel does not keep.
    return "";
  }
}

/** `max` is no limit, for which runc writes 0. */
function numberIn(directory: string | undefined, file: string): number {
  const value = Number(textIn(directory, file).trim());
  return Number.isFinite(value) ? value : 0;
}

function fieldsIn(directory: string | undefined, file: string): Readonly<Record<string, number>> {
  return Object.fromEntries(
    textIn(directory, file)
      .trim()
      .split("\n")
      .flatMap((line) => {
        const [name, value] = line.split(" ");
        return name === undefined || value === undefined ? [] : [[name, Number(value)]];
      }),
  );
}

function blkioIn(directory: string | undefined, file: string): readonly object[] {
  return textIn(directory, file)
    .split("\n")
    .flatMap((line) => {
      const found = /^(\d+):(\d+) (\w+) (\d+)$/.exec(line);
      if (found === null) return [];
      return [
        { major: Number(found[1]), minor: Number(found[2]), op: found[3]?.toLowerCase(), value: Number(found[4]) },
      ];
    });
}
