import { parseInstanceId } from "../../base/id.ts";
import type { PlanStep } from "../../client/message.ts";
import { argument, command as define, flag } from "../command.ts";
import { confirm } from "../confirm.ts";
import { printJson, say, type Context } from "../context.ts";
import { follow } from "../follow.ts";
import { stackNamed } from "../stack-source.ts";

export const command = define({
  detail: "Volumes, disks and their data stay unless --volumes is said and confirmed. What is protected is refused.",
  examples: [
    ["croft down", "the stack of ./croft.toml"],
    ["croft down shop --volumes", "the stack shop and its data"],
  ],
  flags: {
    volumes: flag.toggle("Also remove its volumes and the disks of its machines, with their data"),
    yes: flag.toggle("Do not ask before data is removed", { short: "y" }),
    detach: flag.toggle("Do not follow it to the end", { short: "d" }),
  },
  args: { stack: argument.optional("STACK", "The one of ./croft.toml by default", { offers: "stack" }) },
  async run({ flags, args }, context) {
    const { client, json } = context;
    const stack = await stackNamed(args.stack, context);
    if (flags.volumes && !flags.yes) {
      const lost = await dataOf(stack, client);
      if (lost.length > 0 && !(await confirm(context, `Remove the data of ${lost.join(", ")} for good?`))) {
        return await say(context, "nothing was changed");
      }
    }
    const operation = await client.stacks.remove({ stack, volumes: flags.volumes });
    if (flags.detach) {
      if (json) return await printJson(context, operation);
      return await say(context, `the daemon works on it: croft operation watch ${operation.id}`);
    }
    await follow(operation, context);
    await say(context, `${stack} is gone${flags.volumes ? ", with its data" : ""}`);
  },
});

/**
 * What would be deleted for good: `volume db`, `disk root of files-1`. It is what the plan of the same stack with nothing
 * in it says, so disks are named too that machines which are gone have left behind. Throws `not-found` for no stack.
 */
async function dataOf(stack: string, { stacks }: Context["client"]): Promise<readonly string[]> {
  await stacks.get({ stack });
  const source = { path: "croft.json", text: JSON.stringify({ stack }), folder: "/", format: "json" };
  const { steps } = await stacks.plan({ source, pruneVolumes: true });
  return steps.flatMap((step) => (step.cost === "data-loss" ? [dataName(step)] : []));
}

function dataName({ key, action, subject }: PlanStep): string {
  if (action !== "remove-disk") return `volume ${subject.slice(subject.indexOf(".") + 1)}`;
  const { name, ordinal } = parseInstanceId(subject) ?? { name: subject, ordinal: 1 };
  return `disk ${key.slice(key.indexOf("/") + 1)} of ${name}-${ordinal}`;
}
