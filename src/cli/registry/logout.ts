import { argument, command as define } from "../command.ts";
import { say } from "../context.ts";
import { defaultRegistry } from "./login.ts";

export const command = define({
  detail: "The daemon forgets the credentials.",
  args: { registry: argument.optional("REGISTRY", `${defaultRegistry} by default`) },
  async run({ args }, context) {
    const registry = args.registry ?? defaultRegistry;
    await context.client.images.logoutRegistry({ registry });
    await say(context, `logged out of ${registry}`);
  },
});
