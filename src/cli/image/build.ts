import { argument, command as define, flag } from "../command.ts";
import { say } from "../context.ts";
import { follow } from "../follow.ts";
import { checkSource, completeSource, readStackFile } from "../stack-source.ts";

export const command = define({
  detail: "Builds the [image.x] sections of a stack file, and changes nothing that runs. croft up builds by itself.",
  flags: {
    file: flag.text("FILE", "A stack file or its folder, ./croft.toml by default", { short: "f", offers: "file" }),
    fresh: flag.toggle("Build again although nothing about them changed"),
  },
  args: { images: argument.any("IMAGE", "Sections to build, all by default") },
  async run({ flags, args }, context) {
    const checked = await checkSource(await readStackFile(flags.file, context), context);
    const source = await completeSource(checked, context);
    const { images } = args;
    await follow(await context.client.images.build({ source, images, fresh: flags.fresh }), context);
    await say(context, images.length === 0 ? "all images are built" : `built: ${images.join(", ")}`);
  },
});
