import { argument, command as define, flag } from "../command.ts";
import { printJson } from "../context.ts";
import { checkSource, completeSource, readStackFile } from "../stack-source.ts";
import { isEmpty, refuse, showPlan } from "./up.ts";

export const command = define({
  detail: "Changes nothing. Local files are sent to the daemon, because their content is part of the plan.",
  examples: [
    ["croft plan", "what croft up would do here"],
    ["croft plan --json", "the same for programs"],
  ],
  flags: {
    pruneVolumes: flag.toggle("Also remove volumes that the file no longer declares, with their data"),
  },
  args: { file: argument.optional("FILE", "A stack file or its folder, ./croft.toml by default", { offers: "file" }) },
  async run({ flags, args }, context) {
    const { client, out } = context;
    const checked = await checkSource(await readStackFile(args.file, context), context);
    const source = await completeSource(checked, context);
    const plan = await client.stacks.plan({ source, pruneVolumes: flags.pruneVolumes, color: out.color });
    if (plan.refusals.length > 0) await refuse(plan, context);
    if (context.json) await printJson(context, plan);
    else if (isEmpty(plan)) await out.write(plan.text);
    else await showPlan(plan, context);
  },
});
