import { constants } from "node:os";
import type { Cgroups } from "../../../host/cgroup.ts";
import type { Exit } from "../../contract.ts";
import type { InstancePaths } from "../../monitor/layout.ts";
import { type Observation, observe } from "../../monitor/observe.ts";
import { readRecord } from "../../monitor/record.ts";
import { volumesServed } from "./volume.ts";
import { machinePaths, readExitWords, type Started } from "./place.ts";

/** As of a container, whose main process is QEMU; only that the program in the guest begins and ends on its own. */
export interface MachineObservation extends Observation {
  /** QEMU itself was not let go yet; `awaitsRelease` is true until the guest's program runs. */
  readonly awaitsMachine: boolean;
  /** All volumes are there. */
  readonly volumesServed: boolean;
}

export function observeMachine(paths: InstancePaths, cgroups: Cgroups): MachineObservation {
  const seen = observe(paths, cgroups);
  const machine = machinePaths(paths);
  const started = readRecord(machine.startedFile) as Started | undefined;
  // What ended before its program ran has not run.
  const exit = started === undefined || seen.exit === undefined ? undefined : exitOf(seen.exit, readExitWords(machine));
  const { startedMs: _, ...rest } = seen;
  return {
    ...rest,
    startedMs: started?.startedMs,
    exit,
    awaitsMachine: seen.awaitsRelease,
    volumesServed: volumesServed(machine),
    awaitsRelease: seen.main !== undefined && started === undefined,
  };
}

/** A guest whose kernel gave up says nothing, and QEMU ends as if all were well. */
const wordlessCode = 255;

/** What the guest said last counts; QEMU's own end only says that it was killed. */
function exitOf(machine: Exit, said: string): Exit {
  const words = /^([0-9]{1,3}) ([0-9]{1,15})$/.exec(said);
  const killed = 128 + constants.signals.SIGKILL;
  if (words === null)
    return machine.code === killed
      ? machine
      : { ...withCode(wordlessCode), finishedMs: machine.finishedMs, oomKilled: false };
  const code = Number(words[1]);
  return { ...withCode(code), oomKilled: code === killed && Number(words[2]) > 0, finishedMs: machine.finishedMs };
}

function withCode(code: number): { readonly code: number; readonly signal?: string } {
  const signal = Object.entries(constants.signals).find(([, number]) => number === code - 128)?.[0];
  return signal === undefined ? { code } : { code, signal };
}
