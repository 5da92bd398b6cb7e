import { command as define } from "../command.ts";
import { forEachMeant, instancesArgument } from "./select.ts";

export const command = define({
  args: { instances: instancesArgument() },
  async run({ args }, context) {
    return await forEachMeant(args.instances, (instance) => context.client.instances.start({ instance }), context);
  },
});
