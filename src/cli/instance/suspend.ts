import { argument, command as define } from "../command.ts";
import { forEach } from "./each.ts";

export const command = define({
  detail:
    "Writes the memory of microVMs and full machines to disk and ends what runs, until croft resume goes on from there, also after a reboot. " +
    "A container has no memory of its own to keep: pause it instead.",
  args: { instances: argument.some("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  async run({ args }, context) {
    return await forEach(args.instances, (instance) => context.client.instances.suspend({ instance }), context);
  },
});
