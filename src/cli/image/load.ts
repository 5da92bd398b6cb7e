import { createReadStream } from "node:fs";
import { Fault } from "../../base/fault.ts";
import { command as define, flag } from "../command.ts";
import { printJson } from "../context.ts";
import { inputFile } from "../input-file.ts";

export const command = define({
  detail: "Reads an OCI or docker archive, packed by gzip or zstd or not.",
  flags: { input: flag.text("FILE", "Read a file instead of standard input", { short: "i", offers: "file" }) },
  async run({ flags }, context) {
    if (flags.input === undefined && context.keyboard.isTTY === true) {
      throw new Fault("invalid", "an archive cannot be typed", { hint: "name a file: -i FILE" });
    }
    const archive =
      flags.input === undefined
        ? context.keyboard
        : createReadStream(inputFile(flags.input, context.directory), { highWaterMark: 1 << 18 });
    const loaded = await context.client.images.load(archive as AsyncIterable<Uint8Array>);
    if (context.json) return await printJson(context, loaded);
    const names = loaded.images.map(({ references, digest }) =>
      references.length === 0 ? digest : references.join(" "),
    );
    await context.out.write(names.map((name) => `${name}\n`).join(""));
  },
});
