import { formatDuration } from "../../base/unit.ts";
import type { Generation } from "../../client/message.ts";
import { argument, command as define } from "../command.ts";
import { printJson, type Context } from "../context.ts";
import type { Tint } from "../paint.ts";
import { stackNamed } from "../stack-source.ts";
import { harmless } from "../width.ts";

export const command = define({
  detail: "Generations, newest first: when, who, what changed, and why one failed.",
  args: { stack: argument.optional("STACK", "The one of ./croft.toml by default", { offers: "stack" }) },
  async run({ args }, context) {
    const stack = await stackNamed(args.stack, context);
    const list = await context.client.stacks.listGenerations({ stack });
    if (context.json) return await printJson(context, list);
    const nowMs = context.clock.nowMs();
    await context.out.write(list.generations.map((generation) => describe(generation, nowMs, context)).join("\n"));
  },
});

const tints: Readonly<Record<string, Tint>> = { live: "good", failed: "bad", "rolled-back": "bad", applying: "warn" };

function describe(generation: Generation, nowMs: number, { out: { paint } }: Context): string {
  const { number, status, current, created, author, message, changes, failure } = generation;
  const age = created === undefined ? "" : `  ${formatDuration(nowMs - Date.parse(created))} ago`;
  const by = author === "" ? "" : ` by ${harmless(author)}`;
  const why = message === "" ? "" : `  ${paint(harmless(message), "bold")}`;
  const head = `${paint(current ? "●" : "○", current ? "good" : "dim")} ${number}  ${paint(status, tints[status])}${paint(`${age}${by}`, "dim")}${why}\n`;
  const failed = failure === "" ? [] : failure.split("\n").map((line) => paint(harmless(line), "bad"));
  return head + [...changes.map(harmless), ...failed].map((line) => `    ${line}\n`).join("");
}
