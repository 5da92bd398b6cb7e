import { argument, command as define } from "../command.ts";
import { forEach } from "./each.ts";

export const command = define({
  args: { instances: argument.some("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  async run({ args }, context) {
    return await forEach(args.instances, (instance) => context.client.instances.unpause({ instance }), context);
  },
});
