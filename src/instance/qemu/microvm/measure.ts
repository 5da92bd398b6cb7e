import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import type { ProgramLaunch } from "../../contract.ts";
import { readText } from "../../monitor/record.ts";
import { ask } from "./control.ts";
import type { MachinePaths } from "./place.ts";

/** What the guest's kernel counts for the program and what it started: as a container's group does on a host. */
export async function measure(
  machine: MachinePaths,
  id: InstanceId,
  call: Call,
): Promise<{ readonly memoryBytes: number; readonly pids: number; readonly oomKills: number }> {
  const words = await ask(machine.controlSocket, `measure ${id}`, "stat", call, { timeoutMs: answerTimeoutMs });
  const [usedBytes = NaN, cacheBytes = NaN, pids = NaN, oomKills = NaN] = words.map(Number);
  if (![usedBytes, cacheBytes, pids, oomKills].every((value) => Number.isSafeInteger(value) && value >= 0)) {
    throw new Fault("failed", `measure ${id}: the guest answers with no numbers`);
  }
  return { memoryBytes: Math.max(0, usedBytes - cacheBytes), pids, oomKills };
}

const answerTimeoutMs = 3_000;

/** What went through its taps, seen from inside: what the host sends is what it receives. */
export function tapCounters({ attachment }: ProgramLaunch): {
  readonly receivedBytes: number;
  readonly sentBytes: number;
} {
  const taps = attachment.kind === "tap" ? attachment.taps : [];
  const sum = (counter: string): number =>
    taps.reduce((total, { name }) => total + Number(readText(`/sys/class/net/${name}/statistics/${counter}`) ?? 0), 0);
  return { receivedBytes: sum("tx_bytes"), sentBytes: sum("rx_bytes") };
}
