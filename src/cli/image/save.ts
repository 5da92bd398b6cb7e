import { argument, command as define, flag } from "../command.ts";
import { writeOut } from "../write-out.ts";

export const command = define({
  examples: [
    ["croft image save -o site.tar site:2", "into a file"],
    ["croft image save site:2 | ssh host croft image load", "to another machine"],
  ],
  flags: {
    output: flag.text("FILE", "Write into a file instead of standard output", { short: "o", offers: "file" }),
    format: flag.text("FORMAT", "How to write it, oci by default", { offers: ["oci", "docker"] }),
  },
  args: { images: argument.some("IMAGE", "References, names or digests", { offers: "image" }) },
  async run({ flags, args }, context) {
    const format = flags.format === undefined ? {} : { format: flags.format };
    const archive = context.client.images.save({ references: args.images, ...format });
    await writeOut(archive, flags.output, context);
  },
});
