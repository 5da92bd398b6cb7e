import { Fault } from "../../base/fault.ts";
import type { Terminal } from "../../client/message.ts";
import type { Context } from "../context.ts";
import { exitCode } from "../exit-code.ts";
import { terminalSize } from "../session.ts";

/** The exit code of run, exec and attach when there is no process whose code could be passed on. */
export function processExitCode({ reason, message }: Fault): number {
  if (reason === "cancelled") return exitCode.interrupted;
  // The runtime's own words come through as they are: which of the two it was stands only there.
  if (/permission denied|exec format error|open executable/i.test(message)) return exitCode.notExecutable;
  if (/executable file .* not found|is not a program of/i.test(message)) return exitCode.programNotFound;
  return exitCode.runFailed;
}

/** The size of the terminal that a process is given. With input it must be one that keys can be read from. */
export function sessionTerminal(context: Context, input: boolean): Terminal {
  if (input && context.keyboard.isTTY !== true) {
    throw new Fault("invalid", "standard input is no terminal", { hint: "leave -t out to pipe data into the program" });
  }
  return terminalSize(context) ?? { columns: 80, rows: 24 };
}
