import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail: "Prints JSON, as the API gives it. Values that come from secrets are not in it.",
  args: { instances: argument.some("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  async run({ args }, context) {
    const all = await Promise.all(args.instances.map((instance) => context.client.instances.get({ instance })));
    await printJson(context, all.length === 1 ? all[0] : all);
  },
});
