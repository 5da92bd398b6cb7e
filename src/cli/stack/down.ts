import { argument, command as define, flag } from "../command.ts";
import { confirm } from "../confirm.ts";
import { printJson, say } from "../context.ts";
import { follow } from "../follow.ts";
import { stackNamed } from "../stack-source.ts";

export const command = define({
  detail: "Volumes and their data stay unless --volumes is said and confirmed. What is protected is refused.",
  examples: [
    ["croft down", "the stack of ./croft.toml"],
    ["croft down shop --volumes", "the stack shop and its data"],
  ],
  flags: {
    volumes: flag.toggle("Also remove its volumes, with their data"),
    yes: flag.toggle("Do not ask before data is removed", { short: "y" }),
    detach: flag.toggle("Do not follow it to the end", { short: "d" }),
  },
  args: { stack: argument.optional("STACK", "The one of ./croft.toml by default", { offers: "stack" }) },
  async run({ flags, args }, context) {
    const { client, json } = context;
    const stack = await stackNamed(args.stack, context);
    if (flags.volumes && !flags.yes) {
      const { volumes } = await client.volumes.list({ stack });
      const names = volumes.map(({ name }) => name).join(", ");
      if (names !== "" && !(await confirm(context, `Remove the data of ${names} for good?`))) {
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
