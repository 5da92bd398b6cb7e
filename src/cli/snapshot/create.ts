import { argument, command as define, flag } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail:
    "Keeps the disks of a machine as they are now. What runs goes on; a guest agent in it writes back its file systems first.",
  examples: [["croft snapshot create files before-upgrade --memory", "with all that runs in it"]],
  flags: {
    memory: flag.toggle("Keep what is in memory too: going back then finds everything running", { short: "m" }),
  },
  args: {
    machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }),
    name: argument.one("NAME", "What to call it"),
  },
  async run({ flags, args }, context) {
    const { machine, name } = args;
    const snapshot = await context.client.machines.createSnapshot({ machine, name, memory: flags.memory });
    if (context.json) return await printJson(context, snapshot);
    if (!context.quiet) await context.out.write(`${snapshot.name}\n`);
  },
});
