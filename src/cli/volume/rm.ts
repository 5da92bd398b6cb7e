import { argument, command as define, flag } from "../command.ts";
import { confirm } from "../confirm.ts";
import { say } from "../context.ts";
import { forEach } from "../instance/each.ts";

export const command = define({
  detail: "Deletes volumes and their data. Refused while an instance uses one, or when it is protected.",
  flags: { yes: flag.toggle("Do not ask", { short: "y" }) },
  args: { volumes: argument.some("VOLUME", "db, or shop/db where several have that name", { offers: "volume" }) },
  async run({ flags, args }, context) {
    const { volumes } = args;
    if (!flags.yes && !(await confirm(context, `Remove the data of ${volumes.join(", ")} for good?`))) {
      await say(context, "nothing was changed");
      return 0;
    }
    return await forEach(volumes, (volume) => context.client.volumes.remove({ volume }), context);
  },
});
