import { constants } from "node:os";
import { Fault } from "../../base/fault.ts";

/** `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` as the kernel's number; `invalid` for anything else. */
export function signalNumber(name: string): number {
  const upper = name.toUpperCase();
  const full = upper.startsWith("SIG") ? upper : `SIG${upper}`;
  const known = Object.entries(constants.signals).find(([signal]) => signal === full)?.[1];
  if (known !== undefined) return known;
  // The C library keeps the first two real-time signals for itself; these are the numbers that programs see.
  const realTime = /^SIGRT(MIN\+|MAX-)([0-9]{1,2})$/.exec(full);
  if (full === "SIGRTMIN") return 34;
  if (full === "SIGRTMAX") return 64;
  const offset = Number(realTime?.[2] ?? (/^[0-9]{1,2}$/.test(name) ? name : Number.NaN));
  const number = realTime === null ? offset : realTime[1] === "MIN+" ? 34 + offset : 64 - offset;
  const lowest = realTime === null ? 1 : 34;
  if (number >= lowest && number <= 64) return number;
  throw new Fault("invalid", `"${name}" is not a signal`, { hint: "signals are called SIGTERM, SIGHUP, SIGRTMIN+3" });
}
