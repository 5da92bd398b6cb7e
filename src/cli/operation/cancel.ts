import { argument, command as define } from "../command.ts";
import { forEach } from "../instance/each.ts";

export const command = define({
  detail: "Asks operations to stop, and returns at once.",
  args: { operations: argument.some("OPERATION", "Their ids", { offers: "operation" }) },
  async run({ args }, context) {
    return await forEach(args.operations, (id) => context.client.operations.cancel({ id }), context);
  },
});
