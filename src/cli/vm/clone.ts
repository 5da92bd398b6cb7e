import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail:
    "Makes another machine with the same disks, at once whatever their size, and starts it with a name and an address of its own. The first one must " +
    "not run meanwhile: stop or suspend it.",
  args: {
    machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }),
    name: argument.one("NAME", "What to call the new one"),
  },
  async run({ args }, context) {
    const clone = await context.client.machines.clone(args);
    if (context.json) await printJson(context, clone);
    else await context.out.write(`${clone.name}\n`);
  },
});
