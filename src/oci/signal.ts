import { constants } from "node:os";
import { Fault } from "../base/fault.ts";

/** As glibc numbers them, two being kept for its threads. */
const firstRealTime = 34;
const lastRealTime = 64;

/** `9`, `KILL`, `SIGKILL`, `SIGRTMIN+3`: as callers of runtimes write signals. */
export function signalNumber(said: string): number {
  const name = said.toUpperCase().replace(/^SIG/, "");
  const known = constants.signals[`SIG${name}` as NodeJS.Signals];
  if (known !== undefined) return known;
  const relative = /^RT(MIN\+|MAX-)(\d{1,2})$/.exec(name);
  const number = relative === null ? Number(said) : fromEnd(relative[1] === "MIN+", Number(relative[2]));
  if (Number.isInteger(number) && number >= 1 && number <= lastRealTime) return number;
  throw new Fault("invalid", `"${said}" is not a signal`);
}

function fromEnd(isMin: boolean, distance: number): number {
  const number = isMin ? firstRealTime + distance : lastRealTime - distance;
  return number >= firstRealTime ? number : NaN;
}
