import type { Fault } from "../base/fault.ts";
import type { Command } from "./command.ts";
import type { Context } from "./context.ts";
import { exitCodeOf } from "./exit-code.ts";

/** Says what went wrong, and returns its exit code. */
export async function fail(fault: Fault, { err, json }: Context, command?: Command): Promise<number> {
  const { reason, message, hint, detail } = fault;
  if (json) {
    await err.write(`${JSON.stringify({ error: { reason, message, hint: hint ?? "", detail } })}\n`);
  } else {
    const advice = hint === undefined || hint === "" ? "" : `${hint.replaceAll(/^/gm, "  ")}\n`;
    await err.write(`${err.paint("error:", "bad")} ${message}\n${err.paint(advice, "dim")}`);
  }
  return command?.exitCodeOf?.(fault) ?? exitCodeOf(reason);
}
