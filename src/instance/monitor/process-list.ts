import { readFileSync } from "node:fs";
import type { ProcessFacts } from "../contract.ts";
import { readText } from "./record.ts";

/** How many clock ticks the kernel counts in a second: fixed for all that /proc shows. */
const ticksPerSecond = 100;
const pageBytes = 4096;

/** As `ps` shows them, those that still run. `userName` gives names to uids. */
export function describeProcesses(pids: readonly number[], userName: (uid: number) => string): ProcessFacts[] {
  const bootMs = Number(/^btime ([0-9]+)$/m.exec(readFileSync("/proc/stat", "utf8"))?.[1] ?? 0) * 1000;
  return pids.flatMap((pid) => {
    const stat = readText(`/proc/${pid}/stat`);
    const status = readText(`/proc/${pid}/status`);
    if (stat === undefined || status === undefined) return [];
    return [describe(pid, stat, status, readText(`/proc/${pid}/cmdline`) ?? "", bootMs, userName)];
  });
}

function describe(
  pid: number,
  stat: string,
  status: string,
  commandLine: string,
  bootMs: number,
  userName: (uid: number) => string,
): ProcessFacts {
  // The name in parentheses may itself hold spaces and parentheses.
  const open = stat.indexOf("(");
  const close = stat.lastIndexOf(")");
  const fields = stat
    .slice(close + 2)
    .split(" ")
    .map(Number);
  const command = commandLine.split("\0").join(" ").trim();
  return {
    pid,
    parentPid: fields[1] ?? 0,
    user: userName(Number(/^Uid:\s+([0-9]+)/m.exec(status)?.[1] ?? 0)),
    cpuMs: ticksToMs((fields[11] ?? 0) + (fields[12] ?? 0)),
    memoryBytes: (fields[21] ?? 0) * pageBytes,
    startedMs: bootMs + ticksToMs(fields[19]),
    // A kernel thread or a zombie has no command line.
    command: command === "" ? `[${stat.slice(open + 1, close)}]` : command,
  };
}

function ticksToMs(ticks: number | undefined): number {
  return Math.round(((ticks ?? 0) * 1000) / ticksPerSecond);
}

/** Bytes received and sent by all interfaces but loopback, from the text of `/proc/<pid>/net/dev`. */
export function parseNetDev(text: string): { readonly receivedBytes: number; readonly sentBytes: number } {
  let receivedBytes = 0;
  let sentBytes = 0;
  for (const line of text.split("\n").slice(2)) {
    const [name = "", counters = ""] = line.split(":");
    if (name.trim() === "lo") continue;
    const fields = counters.trim().split(/\s+/).map(Number);
    receivedBytes += fields[0] ?? 0;
    sentBytes += fields[8] ?? 0;
  }
  return { receivedBytes, sentBytes };
}
