import { Fault } from "../../base/fault.ts";
import type { Plan } from "../../client/message.ts";
import { argument, command as define, flag } from "../command.ts";
import { confirm } from "../confirm.ts";
import { printJson, say, type Context } from "../context.ts";
import { follow } from "../follow.ts";
import { checkSource, completeSource, readStackFile } from "../stack-source.ts";
import { printRunning } from "./running.ts";

export const command = define({
  detail:
    "Shows the plan, asks, and moves the stack to it. An update that does not become healthy goes back by itself. " +
    "Ctrl-C stops following; the daemon goes on.",
  examples: [
    ["croft up", "the stack of ./croft.toml"],
    ["croft up shop/ --yes", "the stack in a folder, without asking"],
    ["croft up --yes --detach", "return as soon as the daemon has taken it"],
  ],
  flags: {
    yes: flag.toggle("Apply without asking", { short: "y" }),
    detach: flag.toggle("Do not follow it until it is healthy", { short: "d" }),
    pull: flag.toggle("Fetch images again although they are here"),
    build: flag.toggle("Build images again although nothing about them changed"),
    pruneVolumes: flag.toggle("Also remove volumes that the file no longer declares, with their data"),
    message: flag.text("TEXT", "Why, for croft history", { short: "m" }),
  },
  args: { file: argument.optional("FILE", "A stack file or its folder, ./croft.toml by default", { offers: "file" }) },
  async run({ flags, args }, context) {
    const { client, out, json } = context;
    const checked = await checkSource(await readStackFile(args.file, context), context);
    const source = await completeSource(checked, context);
    const { pruneVolumes, pull, build } = flags;
    const plan = await client.stacks.plan({ source, pruneVolumes, color: out.color });
    if (plan.refusals.length > 0) await refuse(plan, context);
    const nothing = isEmpty(plan) && !pull && !build;
    if (!json && !context.quiet && !nothing) await showPlan(plan, context, { pull, build });
    // An empty plan is applied without asking: it changes nothing, and tells whether the stack is well.
    if (!nothing && !flags.yes && !(await confirm(context, "Apply?"))) {
      await say(context, "nothing was changed");
      return;
    }
    const operation = await client.stacks.apply({
      source,
      pruneVolumes,
      pull,
      build,
      baseGeneration: plan.baseGeneration,
      ...(flags.message !== undefined && { message: flags.message }),
    });
    if (flags.detach) {
      if (json) return await printJson(context, operation);
      return await say(context, `the daemon works on it: croft operation watch ${operation.id}`);
    }
    await follow(operation, context);
    if (nothing && !json) return await out.write(plan.text);
    if (!json && !context.quiet) await printRunning(plan.stack, context);
  },
});

/** Nothing to do, and nothing to fetch or build either. */
export function isEmpty({ steps, missingImages }: Plan): boolean {
  return steps.length === 0 && missingImages.length === 0;
}

/** `pull`, `build`: what was asked for of images that are here; what comes of it is not known before it is done. */
export async function showPlan(
  plan: Plan,
  { out }: Context,
  { pull, build } = { pull: false, build: false },
): Promise<void> {
  const { text, missingImages } = plan;
  if (missingImages.length > 0) {
    await out.write(out.paint(` first made or fetched: ${missingImages.join(", ")}\n`, "dim"));
  }
  const again = [...(pull ? ["fetched"] : []), ...(build ? ["built"] : [])].join(" and ");
  if (again !== "") {
    await out.write(out.paint(` images are ${again} again, and what runs one that changed is made anew\n`, "dim"));
  }
  // Of a plan without steps it would say that there is nothing to do.
  await out.write(again !== "" && isEmpty(plan) ? "\n" : `${text}\n`);
}

/** Shows a plan that must not be applied, and throws why. */
export async function refuse(plan: Plan, context: Context): Promise<never> {
  const [first] = plan.refusals;
  if (context.json) await printJson(context, plan);
  else await showPlan(plan, context);
  throw new Fault("protected", `${plan.stack}: ${first?.subject} is refused: ${first?.why}`, {
    hint: first?.hint ?? "",
  });
}
