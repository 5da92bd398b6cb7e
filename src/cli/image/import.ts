import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { Fault } from "../../base/fault.ts";
import { argument, command as define, flag } from "../command.ts";
import { printJson, say } from "../context.ts";
import { follow } from "../follow.ts";

export const command = define({
  detail:
    "Brings a disk image or an ISO into the library that machines begin with: a file from here, or a URL that the daemon fetches. It is held against " +
    "its checksum first. An ISO, and all that comes from a URL, is refused without one unless --unverified is said. gzip, xz and zstd are unpacked.",
  examples: [
    ["croft image import ./debian-12.qcow2", "a file"],
    ["croft image import https://…/debian-12.qcow2 --sums https://…/SHA512SUMS", "as its publisher vouches for it"],
  ],
  flags: {
    name: flag.text("NAME", "What to call it; as the file is called otherwise"),
    checksum: flag.text("DIGEST", "sha256: or sha512: and hex digits, of the file as it comes"),
    sums: flag.text("URL", "A list such as SHA256SUMS, in which it is found by its name"),
    signature: flag.text("URL", "Its detached signature, where the list is not signed itself"),
    keyring: flag.text("FILE", "On the daemon's machine: the keys that may have signed it"),
    unverified: flag.toggle("Also when nothing vouches for it"),
    replace: flag.toggle("The name may mean another image so far"),
  },
  args: { source: argument.one("FILE|URL", "What to bring in", { offers: "file" }) },
  async run({ flags, args }, context) {
    const { source } = args;
    const said = {
      ...(flags.name !== undefined && { name: flags.name }),
      ...(flags.checksum !== undefined && { checksum: flags.checksum }),
      allowUnverified: flags.unverified,
      replace: flags.replace,
    };
    if (/^https?:\/\//.test(source)) {
      const operation = await context.client.library.import({
        ...said,
        url: source,
        ...(flags.sums !== undefined && { checksumListUrl: flags.sums }),
        ...(flags.signature !== undefined && { signatureUrl: flags.signature }),
        ...(flags.keyring !== undefined && { keyringPath: flags.keyring }),
      });
      await follow(operation, context);
      return await say(context, `${flags.name ?? basename(new URL(source).pathname)} is here`);
    }
    if (flags.sums !== undefined || flags.signature !== undefined || flags.keyring !== undefined) {
      throw new Fault("invalid", "a list of checksums is for what comes from a URL", {
        hint: "say --checksum instead",
      });
    }
    const path = resolve(context.directory, source);
    if (!(await isFile(path))) throw new Fault("not-found", `there is no file ${source}`);
    const bytes = createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Uint8Array>;
    const image = await context.client.library.upload({ ...said, filename: basename(path) }, bytes);
    if (context.json) await printJson(context, image);
    else if (!context.quiet) await context.out.write(`${flags.name ?? image.names.join(" ")}\n`);
  },
});

async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    (facts) => facts.isFile(),
    () => false,
  );
}
