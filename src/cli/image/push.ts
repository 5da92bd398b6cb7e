import { argument, command as define } from "../command.ts";
import { say } from "../context.ts";
import { follow } from "../follow.ts";

export const command = define({
  args: { image: argument.one("REFERENCE", "Says where to: localhost:5000/site:2", { offers: "image" }) },
  async run({ args }, context) {
    await follow(await context.client.images.push({ reference: args.image }), context);
    await say(context, `${args.image} is pushed`);
  },
});
