import { command as define } from "../command.ts";
import { forEachMeant, instancesArgument } from "./select.ts";

export const command = define({
  detail:
    "Writes the memory of microVMs and full machines to disk and ends what runs, until croft resume goes on from there, also after a reboot. " +
    "A container has no memory of its own to keep: pause it instead.",
  args: { instances: instancesArgument() },
  async run({ args }, context) {
    return await forEachMeant(args.instances, (instance) => context.client.instances.suspend({ instance }), context);
  },
});
