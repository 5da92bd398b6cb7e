import { command as define, flag } from "../command.ts";
import { readGrace } from "../value.ts";
import { forEachMeant, instancesArgument } from "./select.ts";

export const command = define({
  flags: {
    time: flag.parsed("DURATION", "How long its process may take before it is killed: 10s", readGrace, { short: "t" }),
  },
  args: { instances: instancesArgument() },
  async run({ flags, args }, context) {
    const grace = flags.time === undefined ? {} : { grace: flags.time };
    return await forEachMeant(
      args.instances,
      (instance) => context.client.instances.restart({ instance, ...grace }),
      context,
    );
  },
});
