import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail: "Prints JSON, as the API gives it.",
  args: {
    networks: argument.some("NETWORK", "back, or shop/back where several have that name", { offers: "network" }),
  },
  async run({ args }, context) {
    const all = await Promise.all(args.networks.map((network) => context.client.networks.get({ network })));
    await printJson(context, all.length === 1 ? all[0] : all);
  },
});
