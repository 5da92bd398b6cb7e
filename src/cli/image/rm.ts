import { argument, command as define, flag } from "../command.ts";
import { forEach } from "../instance/each.ts";

export const command = define({
  detail: "Takes a name away; content that nothing needs any more goes with croft image gc.",
  flags: { force: flag.toggle("Also when a stack uses it", { short: "f" }) },
  args: { images: argument.some("IMAGE", "References, names or digests", { offers: "image" }) },
  async run({ flags, args }, context) {
    const { force } = flags;
    return await forEach(args.images, (image) => context.client.images.remove({ image, force }), context);
  },
});
