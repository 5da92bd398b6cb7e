import { command as define } from "../command.ts";
import { forEachMeant, instancesArgument } from "./select.ts";

export const command = define({
  detail: "The same as croft start, which goes on from the memory that was kept where there is one.",
  args: { instances: instancesArgument() },
  async run({ args }, context) {
    return await forEachMeant(args.instances, (instance) => context.client.instances.start({ instance }), context);
  },
});
