import { argument, command as define } from "../command.ts";
import { forEach } from "../instance/each.ts";
import { secretNamed } from "./name.ts";

export const command = define({
  detail: "Removes all its versions.",
  args: { secrets: argument.some("SECRET", "STACK/NAME, or NAME for the stack of ./croft.toml") },
  async run({ args }, context) {
    return await forEach(
      args.secrets,
      async (secret) => await context.client.secrets.remove(await secretNamed(secret, context)),
      context,
    );
  },
});
