import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { Fault } from "../../base/fault.ts";
import { argument, command as define, flag } from "../command.ts";
import { say } from "../context.ts";

export const command = define({
  examples: [["croft vm screenshot -o files.png files", "into a file"]],
  flags: { output: flag.text("FILE", "Write into a file instead of standard output", { short: "o", offers: "file" }) },
  args: { machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }) },
  async run({ flags, args }, context) {
    if (flags.output === undefined && context.out.isTerminal) {
      throw new Fault("invalid", "a picture is nothing for a terminal", { hint: "write it into a file: -o FILE" });
    }
    const { png } = await context.client.machines.takeScreenshot({ machine: args.machine });
    const bytes = Buffer.from(png, "base64");
    if (flags.output === undefined) return await context.out.write(bytes);
    await writeFile(resolve(context.directory, flags.output), bytes);
    await say(context, `saved to ${flags.output}`);
  },
});
