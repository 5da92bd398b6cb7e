import type { Fault } from "../base/fault.ts";
import type { CommandLine } from "./command-line.ts";
import { valueOf } from "./command-line.ts";

/** Where callers look for what went wrong: a file when they named one, and always stderr. */
export interface Log {
  error(fault: Fault): void;
  warn(message: string): void;
  debug(message: string): void;
}

export function logOf({ globals }: CommandLine): Log {
  const isJson = valueOf(globals, "log-format") === "json";
  const file = logFile(valueOf(globals, "log"));
  const line = (level: string, message: string): string => {
    const time = new Date().toISOString();
    if (isJson) return `${JSON.stringify({ level, msg: message, time })}\n`;
    // As runc writes it; on stderr alone, only the sentence, as callers show it to people.
    return file === undefined ? `${message}\n` : `time="${time}" level=${level} msg=${JSON.stringify(message)}\n`;
  };
  const write = (level: string, message: string): boolean => {
    if (file === undefined) {
      say(line(level, message));
      return false;
    }
    try {
      process.getBuiltinModule("node:fs").appendFileSync(file, line(level, message), { mode: 0o644 });
      return true;
    } catch (error) {
      say(`write to the log ${file}: ${(error as Error).message}\n`);
      return false;
    }
  };
  return {
    error(fault) {
      const message = fault.hint === undefined ? fault.message : `${fault.message} (${fault.hint})`;
      write("error", message);
      if (file !== undefined) say(`${message}\n`);
    },
    warn: (message) => void write("warning", message),
    debug: (message) => {
      if (globals.has("debug")) write("debug", message);
    },
  };
}

/** crun takes `file:PATH`, too; the journal and syslog are those of our caller, who reads stderr. */
function logFile(said: string | undefined): string | undefined {
  if (said === undefined || said === "" || /^(journald|syslog):/.test(said)) return undefined;
  return said.replace(/^file:/, "");
}

function say(text: string): void {
  try {
    process.getBuiltinModule("node:fs").writeSync(2, text);
  } catch {
    // Nobody listens.
  }
}
