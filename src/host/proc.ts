import { closeSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";
import { pidfdOpen, pidfdSendSignal } from "./kernel.ts";

/** What `/proc` knows of processes. The kernel answers these reads from memory, so they are made on the spot. */

/** One process and no other, as long as the machine is up: numbers are recycled, but not with the same start. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`. */
  readonly startTicks: number;
}

/** The identity of the process that has this number now; undefined when there is none or it has ended. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const text = readProc(pid, "stat");
  if (text === undefined) return undefined;
  const { state, startTicks } = parseStat(text);
  // A zombie has ended: nothing of it is left but its exit code.
  return state === "Z" || state === "X" ? undefined : { pid, startTicks };
}

/**
 * Parses `/proc/<pid>/stat`. The second field is the program's name in parentheses, which may itself hold spaces and
 * parentheses, so the fields are counted from its last one.
 */
export function parseStat(text: string): { readonly state: string; readonly startTicks: number } {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const startTicks = Number(fields[19]);
  if (state === undefined || !Number.isSafeInteger(startTicks)) {
    throw new Fault("corrupt", `read a process's state: not a stat line: ${text.slice(0, 80)}`);
  }
  return { state, startTicks };
}

/** Whether that very process still runs. */
export function isAlive(identity: ProcessIdentity): boolean {
  return identifyProcess(identity.pid)?.startTicks === identity.startTicks;
}

/**
 * Sends a signal, by name or by the kernel's number, to that very process; false when it has ended. A process that got
 * its number is never hit.
 */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals | number): boolean {
  let pidfd: number | undefined;
  try {
    pidfd = pidfdOpen(identity.pid);
    // The descriptor is bound to the process; what is compared after opening it stays true.
    if (!isAlive(identity)) return false;
    pidfdSendSignal(pidfd, typeof signal === "number" ? signal : constants.signals[signal]);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ESRCH") return false;
    throw hostFault(error, `send ${signal} to process ${identity.pid}`);
  } finally {
    if (pidfd !== undefined) closeSync(pidfd);
  }
}

/** Kills that very process and waits until it is gone: what it was about to do when the signal came has been done. */
export async function endProcess(identity: ProcessIdentity, call: Call): Promise<void> {
  const deadlineMs = call.clock.monotonicMs() + 30_000;
  signalProcess(identity, "SIGKILL");
  for (let delayMs = 1; isAlive(identity); delayMs = Math.min(delayMs * 2, 50)) {
    if (call.clock.monotonicMs() > deadlineMs) {
      throw new Fault("timeout", `kill process ${identity.pid}: it does not end`, {
        hint: "it waits for a device or a file system that does not answer",
      });
    }
    await call.clock.sleep(delayMs, call.signal);
  }
}

/** The memory that this process costs: its own pages and its share of those it has in common. Undefined when it ended. */
export function readPssBytes(pid: number): number | undefined {
  const text = readProc(pid, "smaps_rollup");
  if (text === undefined) return undefined;
  const match = /^Pss:\s+([0-9]+) kB$/m.exec(text);
  return match === null ? undefined : Number(match[1]) * 1024;
}

/** Changes with every boot: state that names processes or mounts of another boot means nothing. */
export function readBootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch (error) {
    throw hostFault(error, "read the boot's id");
  }
}

function readProc(pid: number, name: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8");
  } catch (error) {
    // ESRCH: it ended between opening and reading.
    if (["ENOENT", "ESRCH"].includes(errnoOf(error) ?? "")) return undefined;
    throw hostFault(error, `read ${name} of process ${pid}`);
  }
}
