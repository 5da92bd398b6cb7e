import { isFault } from "../../base/fault.ts";
import type { Finding } from "../../client/message.ts";
import { command as define } from "../command.ts";
import { printJson, type Context } from "../context.ts";
import { exitCode } from "../exit-code.ts";
import type { Tint } from "../paint.ts";
import { displayWidth, harmless, padEnd, wrap } from "../width.ts";

export const command = define({
  detail:
    "The daemon really tries what it needs: engines, storage, networks. When it does not answer, what can be seen from " +
    "here is said instead. The exit code is 1 when something failed.",
  async run(_, context) {
    const { findings } = await context.client.host.diagnose().catch(async (error: unknown) => {
      if (!isFault(error, "unavailable") && !isFault(error, "forbidden")) throw error;
      const { examineFromHere } = await import("./from-here.ts");
      return { findings: await examineFromHere(error, context) };
    });
    if (context.json) await printJson(context, { findings });
    else await show(findings, context);
    return findings.some(({ status }) => status === "failed") ? exitCode.failed : exitCode.ok;
  },
});

const looks: Readonly<Record<string, readonly [sign: string, tint: Tint]>> = {
  ok: ["✓", "good"],
  warning: ["!", "warn"],
  failed: ["✗", "bad"],
};

async function show(findings: readonly Finding[], { out }: Context): Promise<void> {
  const width = Math.max(0, ...findings.map(({ topic }) => displayWidth(topic)));
  const indent = " ".repeat(width + 4);
  for (const { topic, status, detail, mend } of findings) {
    const [sign, tint] = looks[status] ?? ["?", "warn"];
    const room = out.columns - indent.length;
    const [first = "", ...more] = detail.split("\n").flatMap((line) => wrap(harmless(line), room));
    await out.write(`${out.paint(sign, tint)} ${padEnd(topic, width)}  ${first}\n`);
    for (const line of more) await out.write(`${indent}${line}\n`);
    for (const line of mend === "" ? [] : mend.split("\n")) {
      const [advice = "", ...rest] = wrap(`→ ${harmless(line)}`, room);
      await out.write(`${indent}${out.paint(advice, "accent")}\n`);
      for (const words of rest) await out.write(`${indent}${out.paint(`  ${words}`, "accent")}\n`);
    }
  }
  const failed = findings.filter(({ status }) => status === "failed").length;
  const warned = findings.filter(({ status }) => status === "warning").length;
  const told = failed > 0 ? `${failed} failed` : warned > 0 ? `it works; ${warned} could be better` : "all is well";
  await out.write(`\n${out.paint(told, failed > 0 ? "bad" : warned > 0 ? "warn" : "good")}\n`);
}
