import { createReadStream } from "node:fs";
import { Fault } from "../../base/fault.ts";
import { argument, command as define, flag } from "../command.ts";
import { printJson } from "../context.ts";
import { inputFile } from "../input-file.ts";

export const command = define({
  detail: "Makes a machine from a file that croft vm export wrote, and starts it.",
  flags: { name: flag.text("NAME", "What to call it; as the file has it otherwise") },
  args: { file: argument.optional("FILE", "Standard input when it is left out", { offers: "file" }) },
  async run({ flags, args }, context) {
    if (args.file === undefined && context.keyboard.isTTY === true) {
      throw new Fault("invalid", "a machine cannot be typed", { hint: "name a file: croft vm import FILE" });
    }
    const bytes =
      args.file === undefined
        ? context.keyboard
        : createReadStream(inputFile(args.file, context.directory), { highWaterMark: 1 << 18 });
    const name = flags.name === undefined ? {} : { name: flags.name };
    const machine = await context.client.machines.import(name, bytes as AsyncIterable<Uint8Array>);
    if (context.json) await printJson(context, machine);
    else await context.out.write(`${machine.name}\n`);
  },
});
