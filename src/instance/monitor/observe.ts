import { existsSync, statSync } from "node:fs";
import { constants } from "node:os";
import type { InstanceId } from "../../base/id.ts";
import { identifyProcess, isAlive, type ProcessIdentity } from "../../host/proc.ts";
import type { Exit, InstanceFacts, Launch, ProgramLaunch } from "../contract.ts";
import type { Cgroups } from "../../host/cgroup.ts";
import type { InstancePaths } from "./layout.ts";
import { type MonitorRecord, readMonitor } from "./conmon.ts";
import { type LaunchRecord, readRecord, readText } from "./record.ts";
import { awaitsRelease } from "./runtime.ts";

/** What is really there of an instance: read anew each time, so that nothing depends on what the daemon remembers. */
export interface Observation<Kind extends Launch = ProgramLaunch> {
  /** Undefined: half-made, or its preparation went with a reboot. */
  readonly record: LaunchRecord<Kind> | undefined;
  /** conmon, while it lives. */
  readonly monitor: MonitorRecord | undefined;
  /** The main process, while it lives. */
  readonly main: ProcessIdentity | undefined;
  /** The container is there, but its program was not let go. */
  readonly awaitsRelease: boolean;
  /** Of the last run, when it ended. */
  readonly exit: Exit | undefined;
  /** When the last run began. */
  readonly startedMs: number | undefined;
  /** A run began of which this is left: not cleared away yet. */
  readonly hasRun: boolean;
}

export function observe<Kind extends Launch = ProgramLaunch>(
  paths: InstancePaths,
  cgroups: Cgroups,
): Observation<Kind> {
  const watching = readMonitor(paths);
  const monitor = watching !== undefined && isAlive(watching) ? watching : undefined;
  const main = mainProcess(paths);
  return {
    record: readRecord(paths.launchFile) as LaunchRecord<Kind> | undefined,
    monitor,
    main,
    awaitsRelease: main !== undefined && awaitsRelease(paths),
    exit: readExit(paths, cgroups) ?? lostExit(paths, cgroups, monitor ?? main),
    startedMs: watching?.startedMs,
    hasRun: existsSync(paths.bundleDir) || existsSync(paths.exitFile) || existsSync(paths.stateDir),
  };
}

export function factsOf(
  id: InstanceId,
  seen: Observation<Launch>,
  paths: InstancePaths,
  cgroups: Cgroups,
): InstanceFacts {
  const limits = seen.record?.launch.limits ?? {};
  const started = seen.startedMs === undefined ? {} : { startedMs: seen.startedMs };
  if (seen.main !== undefined && !seen.awaitsRelease) {
    return {
      id,
      status: cgroups.freezeState(paths.cgroup) === "thawed" ? "running" : "frozen",
      pid: seen.main.pid,
      ...started,
      intact: seen.record !== undefined && seen.monitor !== undefined,
      limits,
    };
  }
  if (seen.exit !== undefined) {
    return { id, status: "exited", ...started, exit: seen.exit, intact: seen.record !== undefined, limits };
  }
  // It ended a moment ago, and its monitor is about to say how.
  if (seen.monitor !== undefined && seen.main === undefined && existsSync(paths.pidFile)) {
    return { id, status: "running", ...started, intact: seen.record !== undefined, limits };
  }
  // A container whose monitor died before it began, or a monitor that died before there was one.
  const broken = seen.hasRun && seen.monitor === undefined;
  return { id, status: "created", intact: seen.record !== undefined && !broken, limits };
}

/**
 * The pid that the runtime wrote, if it is still that process: a number may be given to another one, but only the
 * instance's own processes are in its control group.
 */
function mainProcess(paths: InstancePaths): ProcessIdentity | undefined {
  const pid = Number(readText(paths.pidFile) ?? "0");
  if (pid <= 0) return undefined;
  const identity = identifyProcess(pid);
  if (identity === undefined) return undefined;
  const groups = readText(`/proc/${pid}/cgroup`) ?? "";
  return groups.split("\n").some((line) => line.endsWith(`:${paths.cgroup}`)) ? identity : undefined;
}

function readExit(paths: InstancePaths, cgroups: Cgroups): Exit | undefined {
  const text = readText(paths.exitFile)?.trim();
  if (text === undefined || !/^[0-9]+$/.test(text)) return undefined;
  return exitOf(Number(text), statSync(paths.exitFile).mtimeMs, paths, cgroups);
}

/** The main process is gone and so is the monitor that would have told how: what can be known is that it was killed. */
function lostExit(paths: InstancePaths, cgroups: Cgroups, alive: ProcessIdentity | undefined): Exit | undefined {
  if (alive !== undefined || !existsSync(paths.pidFile)) return undefined;
  return exitOf(128 + constants.signals.SIGKILL, statSync(paths.pidFile).mtimeMs, paths, cgroups);
}

function exitOf(code: number, finishedMs: number, paths: InstancePaths, cgroups: Cgroups): Exit {
  const signal = Object.entries(constants.signals).find(([, number]) => number === code - 128)?.[0];
  const killed = code === 128 + constants.signals.SIGKILL;
  const oomKilled = killed && cgroups.counters(paths.cgroup).oomKills > 0;
  return { code, ...(signal === undefined ? {} : { signal }), oomKilled, finishedMs: Math.round(finishedMs) };
}
