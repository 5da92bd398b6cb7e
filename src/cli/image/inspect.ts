import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail: "Prints JSON, as the API gives it.",
  args: { images: argument.some("IMAGE", "References, names or digests", { offers: "image" }) },
  async run({ args }, context) {
    const all = await Promise.all(args.images.map((image) => context.client.images.get({ image })));
    await printJson(context, all.length === 1 ? all[0] : all);
  },
});
