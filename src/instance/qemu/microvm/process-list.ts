import type { Call } from "../../../base/call.ts";
import type { InstanceId } from "../../../base/id.ts";
import type { ProcessFacts } from "../../contract.ts";
import { askForLines } from "./control.ts";
import type { MachinePaths } from "./place.ts";

/** The program's processes as the guest's kernel counts them; their numbers are the guest's. */
export async function guestProcesses(machine: MachinePaths, id: InstanceId, call: Call): Promise<ProcessFacts[]> {
  const lines = await askForLines(machine.controlSocket, `list the processes of ${id}`, "processes", call);
  const nowMs = call.clock.nowMs();
  return lines.flatMap((line) => parseProcess(line, nowMs) ?? []);
}

/** pid, parent, user, ticks, pages, ticks from boot to its beginning, seconds since boot, words: see `script/guest.sh`. */
const shape =
  /^([0-9]{1,10}) ([0-9]{1,10}) (\S{1,64}) ([0-9]{1,15}) ([0-9]{1,15}) ([0-9]{1,15}) ([0-9]{1,12}\.[0-9]{2}) (.*)$/;

/** How many clock ticks the kernel counts in a second: fixed for all that /proc shows. */
const ticksPerSecond = 100;
const pageBytes = 4096;

/** Undefined for a line of another shape, as a process that ended meanwhile may leave it. */
export function parseProcess(line: string, nowMs: number): ProcessFacts | undefined {
  const match = shape.exec(line);
  if (match === null) return undefined;
  const [pid = 0, parentPid = 0, , ticks = 0, pages = 0, begun = 0, uptime = 0] = match.slice(1, 8).map(Number);
  return {
    pid,
    parentPid,
    user: match[3] ?? "",
    cpuMs: Math.round((ticks * 1000) / ticksPerSecond),
    memoryBytes: pages * pageBytes,
    startedMs: Math.round(nowMs - (uptime - begun / ticksPerSecond) * 1000),
    command: (match[8] ?? "").trim(),
  };
}
