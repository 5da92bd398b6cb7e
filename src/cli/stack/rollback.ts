import { Fault } from "../../base/fault.ts";
import type { Generation } from "../../client/message.ts";
import { argument, command as define, flag } from "../command.ts";
import { confirm } from "../confirm.ts";
import { printJson, say, type Context } from "../context.ts";
import { follow } from "../follow.ts";
import { stackNamed } from "../stack-source.ts";
import { readWords } from "./diff.ts";
import { printRunning } from "./running.ts";

export const command = define({
  detail:
    "Without a number: to the last generation before the current one that was healthy. Shows what changes, and asks.",
  examples: [
    ["croft rollback", "undo the last apply of the stack of ./croft.toml"],
    ["croft rollback shop 3", "to generation 3"],
  ],
  flags: {
    yes: flag.toggle("Do not ask", { short: "y" }),
    detach: flag.toggle("Do not follow it until it is healthy", { short: "d" }),
  },
  args: { words: argument.any("[STACK] [N]", "The stack and a generation", { offers: "stack" }) },
  async run({ flags, args }, context) {
    const { client, json, quiet } = context;
    const { named, numbers } = readWords(args.words, 1);
    const stack = await stackNamed(named, context);
    let [generation = 0] = numbers;
    if (!flags.yes) {
      generation = await showTarget(stack, generation, context);
      const where = generation === 0 ? "to the generation that was healthy before" : `to generation ${generation}`;
      if (!(await confirm(context, `Move ${stack} back ${where}?`))) return await say(context, "nothing was changed");
    }
    const operation = await client.stacks.rollback({ stack, generation });
    if (flags.detach) {
      if (json) return await printJson(context, operation);
      return await say(context, `the daemon works on it: croft operation watch ${operation.id}`);
    }
    await follow(operation, context);
    if (!json && !quiet) await printRunning(stack, context);
  },
});

/** Shows what would change, and returns the generation that was shown; 0 where the daemon is to choose. */
async function showTarget(stack: string, asked: number, { client, out }: Context): Promise<number> {
  const { generations } = await client.stacks.listGenerations({ stack });
  const current = generations.find((generation) => generation.current)?.number;
  const wasHealthy = ({ number, status }: Generation): boolean =>
    number < (current ?? Infinity) && (status === "superseded" || status === "live");
  const target = asked === 0 ? (generations.find(wasHealthy)?.number ?? 0) : asked;
  if (current === undefined) return target;
  if (target === 0) {
    throw new Fault("precondition", `stack ${stack} has no earlier healthy generation to go back to`, {
      hint: `see: croft history ${stack}`,
    });
  }
  const { text } = await client.stacks.diffGenerations({ stack, from: current, to: target, color: out.color });
  if (text !== "") await out.write(`${text}\n`);
  return target;
}
