import { argument, command as define } from "../command.ts";
import { forEach } from "./each.ts";

export const command = define({
  detail: "The same as croft start, which goes on from the memory that was kept where there is one.",
  args: { instances: argument.some("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  async run({ args }, context) {
    return await forEach(args.instances, (instance) => context.client.instances.start({ instance }), context);
  },
});
