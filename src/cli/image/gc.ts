import { formatSize } from "../../base/unit.ts";
import { command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail: "Deletes content that no name, kept generation or instance needs.",
  async run(_, context) {
    const { images, freedBytes } = await context.client.images.collect();
    if (context.json) return await printJson(context, { images, freedBytes });
    const what = images === 1 ? "1 image" : `${images} images`;
    await context.out.write(`${what} deleted, ${formatSize(freedBytes)} freed\n`);
  },
});
