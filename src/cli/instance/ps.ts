import { command as define, flag } from "../command.ts";
import { printJson, say } from "../context.ts";
import { renderTable } from "../table.ts";
import { instanceColumns, shownName } from "./view.ts";

export const command = define({
  examples: [
    ["croft ps", "what runs"],
    ["croft ps -a --stack shop", "all of one stack, also what has exited"],
    ["croft stop $(croft ps -q --stack shop)", "names for another command"],
  ],
  flags: {
    all: flag.toggle("Also those that have exited", { short: "a" }),
    quiet: flag.toggle("Print names only", { short: "q" }),
    stack: flag.text("STACK", "Only those of this stack", { short: "s", offers: "stack" }),
  },
  async run({ flags }, context) {
    const { client, out, clock } = context;
    const list = await client.instances.list({
      all: flags.all,
      ...(flags.stack !== undefined && { stack: flags.stack }),
    });
    if (context.json) return await printJson(context, list);
    const { instances } = list;
    if (flags.quiet) return await out.write(instances.map((instance) => `${shownName(instance)}\n`).join(""));
    if (instances.length === 0) return await say(context, noneText(flags));
    await out.write(renderTable(instanceColumns(clock.nowMs()), instances, out));
  },
});

function noneText({ all, stack }: { readonly all: boolean; readonly stack: string | undefined }): string {
  if (stack !== undefined)
    return `no instances of stack ${stack}${all ? "" : " run: croft ps --all shows what has exited"}`;
  return all
    ? "no instances: croft up starts a stack, croft run an image"
    : "nothing runs: croft up starts a stack, croft run an image; croft ps --all shows what has exited";
}
