import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  examples: [["croft image tag site localhost:5000/site:2", "a name to push it by"]],
  args: {
    image: argument.one("IMAGE", "A reference, name or digest", { offers: "image" }),
    reference: argument.one("REFERENCE", "Its further name"),
  },
  async run({ args }, context) {
    const image = await context.client.images.tag(args);
    if (context.json) await printJson(context, image);
  },
});
