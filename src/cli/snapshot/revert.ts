import { argument, command as define, flag } from "../command.ts";
import { confirm } from "../confirm.ts";
import { printJson, say } from "../context.ts";

export const command = define({
  detail:
    "Makes the disks of a machine what they were; what was written since is lost, and what runs is ended. With a snapshot that has memory the " +
    "machine runs on from there, otherwise it boots.",
  flags: { yes: flag.toggle("Do not ask", { short: "y" }) },
  args: {
    machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }),
    snapshot: argument.one("SNAPSHOT", "A name, as croft snapshot ls shows it"),
  },
  async run({ flags, args }, context) {
    const { machine, snapshot } = args;
    const question = `Give up all that ${machine} has written since ${snapshot}?`;
    if (!flags.yes && !(await confirm(context, question))) {
      await say(context, "nothing was changed");
      return 0;
    }
    const instance = await context.client.machines.revertSnapshot({ machine, snapshot });
    if (context.json) await printJson(context, instance);
    else await say(context, `${machine} is ${instance.status}, as of ${snapshot}`);
    return 0;
  },
});
