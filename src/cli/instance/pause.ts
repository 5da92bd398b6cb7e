import { command as define } from "../command.ts";
import { forEach } from "./each.ts";
import { instancesArgument, selectInstances } from "./select.ts";

export const command = define({
  args: { instances: instancesArgument() },
  async run({ args }, context) {
    return await forEach(
      await selectInstances(args.instances, context),
      (instance) => context.client.instances.pause({ instance }),
      context,
    );
  },
});
