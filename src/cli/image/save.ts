import { createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { resolve } from "node:path";
import { Fault } from "../../base/fault.ts";
import { argument, command as define, flag } from "../command.ts";
import { say } from "../context.ts";

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
    if (flags.output === undefined) {
      if (context.out.isTerminal) {
        throw new Fault("invalid", "an archive is nothing for a terminal", { hint: "write it into a file: -o FILE" });
      }
      for await (const chunk of archive) await context.out.write(chunk);
      return;
    }
    // Under its own name only when it is whole.
    const path = resolve(context.directory, flags.output);
    const part = `${path}.part`;
    try {
      const { pipeline } = await import("node:stream/promises");
      await pipeline(archive, createWriteStream(part));
      await rename(part, path);
    } catch (error) {
      await rm(part, { force: true });
      throw error;
    }
    await say(context, `saved to ${flags.output}`);
  },
});
