import { argument, command as define, flag } from "../command.ts";
import { readGrace } from "../value.ts";
import { forEach } from "./each.ts";

export const command = define({
  flags: {
    time: flag.parsed("DURATION", "How long its process may take before it is killed: 10s", readGrace, { short: "t" }),
  },
  args: { instances: argument.some("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  async run({ flags, args }, context) {
    const grace = flags.time === undefined ? {} : { grace: flags.time };
    return await forEach(
      args.instances,
      (instance) => context.client.instances.restart({ instance, ...grace }),
      context,
    );
  },
});
