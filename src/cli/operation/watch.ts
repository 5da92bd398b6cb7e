import { argument, command as define } from "../command.ts";
import { say } from "../context.ts";
import { follow } from "../follow.ts";

export const command = define({
  detail: "Follows an operation to its end, and fails as it fails.",
  args: { operation: argument.one("OPERATION", "Its id", { offers: "operation" }) },
  async run({ args }, context) {
    const begun = await context.client.operations.get({ id: args.operation });
    await follow(begun, context);
    await say(context, `${begun.kind} of ${begun.subject} succeeded`);
  },
});
