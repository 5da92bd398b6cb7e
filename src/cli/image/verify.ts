import { argument, command as define } from "../command.ts";
import { say } from "../context.ts";
import { follow } from "../follow.ts";

export const command = define({
  detail: "Reads all of a disk image or ISO again, and fails when it is not what was imported.",
  args: { image: argument.one("NAME", "As croft image ls --disks shows it") },
  async run({ args }, context) {
    await follow(await context.client.library.verify({ name: args.image }), context);
    await say(context, `${args.image} is what was imported`);
  },
});
