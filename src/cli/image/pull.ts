import { argument, command as define, flag } from "../command.ts";
import { say } from "../context.ts";
import { follow } from "../follow.ts";

export const command = define({
  flags: { platform: flag.text("PLATFORM", "For another machine: linux/arm64") },
  args: { image: argument.one("REFERENCE", "nginx:1.27, ghcr.io/acme/runner:2, or with a digest") },
  async run({ flags, args }, context) {
    const platform = flags.platform === undefined ? {} : { platform: flags.platform };
    const operation = await context.client.images.pull({ reference: args.image, ...platform });
    await follow(operation, context);
    await say(context, `${args.image} is here`);
  },
});
