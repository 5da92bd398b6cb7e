import { command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail: "Prints JSON, as the API gives it.",
  async run(_, context) {
    await printJson(context, await context.client.host.get());
  },
});
