import { isFault } from "../../base/fault.ts";
import { argument, command as define, flag } from "../command.ts";
import { forEach } from "../instance/each.ts";

export const command = define({
  detail:
    "Takes a name away; content that nothing needs any more goes with croft image gc. A disk image or ISO is named as croft image ls --disks shows it.",
  flags: { force: flag.toggle("Also when a stack uses it", { short: "f" }) },
  args: { images: argument.some("IMAGE", "References, names or digests", { offers: "image" }) },
  async run({ flags, args }, context) {
    const { force } = flags;
    const { images, library } = context.client;
    const remove = async (image: string): Promise<unknown> => {
      try {
        return await images.remove({ image, force });
      } catch (thrown) {
        if (!isFault(thrown, "not-found")) throw thrown;
        const disks = (await library.list()).images.flatMap(({ names }) => names);
        if (!disks.includes(image)) throw thrown;
        return await library.remove({ name: image });
      }
    };
    return await forEach(args.images, remove, context);
  },
});
