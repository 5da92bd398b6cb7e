import { Fault } from "../../base/fault.ts";
import type { Context } from "../context.ts";
import { printJson } from "../context.ts";
import { exitCodeOf } from "../exit-code.ts";
import { fail } from "../failure.ts";

/**
 * Does the same to several things at once and prints each name when it is done. One that fails does not keep the others
 * from being done; the exit code is that of the first that failed.
 */
export async function forEach(
  names: readonly string[],
  action: (name: string) => Promise<unknown>,
  context: Context,
): Promise<number> {
  const faults = await Promise.all(
    names.map(async (name) => {
      try {
        const answer = await action(name);
        if (context.json) await printJson(context, answer);
        else if (!context.quiet) await context.out.write(`${name}\n`);
        return undefined;
      } catch (thrown) {
        const fault = Fault.from(thrown, name);
        await fail(fault, context);
        return fault;
      }
    }),
  );
  const first = faults.find((fault) => fault !== undefined);
  return first === undefined ? 0 : exitCodeOf(first.reason);
}
