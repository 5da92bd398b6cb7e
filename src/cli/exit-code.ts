import type { Reason } from "../base/fault.ts";

/**
 * The exit codes of `croft`, for scripts. `run`, `exec` and `attach` pass on the code of the process instead, and use
 * 125 to 127 as docker does when there is none.
 */
export const exitCode = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  conflict: 4,
  refused: 5,
  unavailable: 6,
  unhealthy: 7,
  timeout: 8,
  runFailed: 125,
  notExecutable: 126,
  programNotFound: 127,
  interrupted: 130,
} as const;

/** Each code with its meaning, as `docs/reference/cli.md` shows it. */
export const exitCodeMeanings: readonly (readonly [code: number, meaning: string])[] = [
  [exitCode.ok, "Done, or nothing had to be done."],
  [exitCode.failed, "Something failed; the message says what."],
  [exitCode.usage, "The command line or the stack file is wrong."],
  [exitCode.notFound, "What was named does not exist."],
  [exitCode.conflict, "Somebody else was first, a name or port is held, or the thing is in the wrong state."],
  [exitCode.refused, "Refused: it is protected, or you may not do it."],
  [exitCode.unavailable, "The daemon or a registry does not answer."],
  [exitCode.unhealthy, "It did not become healthy in time, and went back by itself where it could."],
  [exitCode.timeout, "It took too long."],
  [exitCode.runFailed, "`run`, `exec`, `attach`: Croft itself failed; there is no process."],
  [exitCode.notExecutable, "`run`, `exec`: the program is there but cannot be executed."],
  [exitCode.programNotFound, "`run`, `exec`: there is no such program in the instance."],
  [exitCode.interrupted, "Interrupted by Ctrl-C, or cancelled. What the daemon was asked to do goes on."],
];

const byReason: Readonly<Record<Reason, number>> = {
  invalid: exitCode.usage,
  "not-found": exitCode.notFound,
  "already-exists": exitCode.conflict,
  conflict: exitCode.conflict,
  precondition: exitCode.conflict,
  protected: exitCode.refused,
  unauthenticated: exitCode.refused,
  forbidden: exitCode.refused,
  unsupported: exitCode.failed,
  unavailable: exitCode.unavailable,
  exhausted: exitCode.failed,
  corrupt: exitCode.failed,
  hostile: exitCode.failed,
  timeout: exitCode.timeout,
  cancelled: exitCode.interrupted,
  unhealthy: exitCode.unhealthy,
  failed: exitCode.failed,
  bug: exitCode.failed,
};

/** The code for a Fault. A reason of a newer daemon, unknown here, is a plain failure. */
export function exitCodeOf(reason: Reason): number {
  return byReason[reason] ?? exitCode.failed;
}
