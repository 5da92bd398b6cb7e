import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail: "Prints JSON, as the API gives it.",
  args: { volumes: argument.some("VOLUME", "db, or shop/db where several have that name", { offers: "volume" }) },
  async run({ args }, context) {
    const all = await Promise.all(args.volumes.map((volume) => context.client.volumes.get({ volume })));
    await printJson(context, all.length === 1 ? all[0] : all);
  },
});
