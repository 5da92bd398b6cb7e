import { argument, command as define, flag } from "../command.ts";
import { writeOut } from "../write-out.ts";

export const command = define({
  detail:
    "Writes the whole machine into one file: what it is, and its disks as they are now. Networks, ports and devices of this machine stay here. " +
    "What runs goes on.",
  examples: [
    ["croft vm export -o files.croftvm files", "into a file"],
    ["croft vm export files | ssh host croft vm import", "to another machine"],
  ],
  flags: { output: flag.text("FILE", "Write into a file instead of standard output", { short: "o", offers: "file" }) },
  args: { machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }) },
  async run({ flags, args }, context) {
    await writeOut(context.client.machines.export({ machine: args.machine }), flags.output, context);
  },
});
