import { argument, command as define } from "../command.ts";
import { forEach } from "../instance/each.ts";

export const command = define({
  args: {
    machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }),
    snapshots: argument.some("SNAPSHOT", "Names, as croft snapshot ls shows them"),
  },
  async run({ args }, context) {
    const { machine } = args;
    const remove = (snapshot: string) => context.client.machines.removeSnapshot({ machine, snapshot });
    return await forEach(args.snapshots, remove, context);
  },
});
