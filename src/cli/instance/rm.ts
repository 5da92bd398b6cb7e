import { argument, command as define, flag } from "../command.ts";
import { forEach } from "./each.ts";

export const command = define({
  detail: "Only what croft run made. What a stack file declares goes by changing the file, or with croft down.",
  flags: { force: flag.toggle("Also when it is running", { short: "f" }) },
  args: { instances: argument.some("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  async run({ flags, args }, context) {
    const { force } = flags;
    return await forEach(args.instances, (instance) => context.client.instances.remove({ instance, force }), context);
  },
});
