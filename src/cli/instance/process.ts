import { Fault } from "../../base/fault.ts";
import type { Terminal } from "../../client/message.ts";
import type { Context } from "../context.ts";
import { exitCode } from "../exit-code.ts";
import { terminalSize } from "../session.ts";

/** The exit code of run, exec and attach when there is no process whose code could be passed on. */
export function processExitCode(fault: Fault): number {
  if (fault.reason === "invalid" && fault.detail["program"] === undefined) return exitCode.runFailed;
  if (/executable file not found|no such file or directory/i.test(fault.message)) return exitCode.programNotFound;
  if (/permission denied|exec format error/i.test(fault.message)) return exitCode.notExecutable;
  return fault.reason === "cancelled" ? exitCode.interrupted : exitCode.runFailed;
}

/** The size of the terminal that a process is given. With input it must be one that keys can be read from. */
export function sessionTerminal(context: Context, input: boolean): Terminal {
  if (input && context.keyboard.isTTY !== true) {
    throw new Fault("invalid", "standard input is no terminal", { hint: "leave -t out to pipe data into the program" });
  }
  return terminalSize(context) ?? { columns: 80, rows: 24 };
}
