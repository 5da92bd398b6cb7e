import { formatDuration } from "../../base/unit.ts";
import type { Stack } from "../../client/message.ts";
import { command as define, flag } from "../command.ts";
import { printJson, say } from "../context.ts";
import type { Tint } from "../paint.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  flags: { quiet: flag.toggle("Print names only", { short: "q" }) },
  async run({ flags }, context) {
    const { client, out, clock } = context;
    const list = await client.stacks.list();
    if (context.json) return await printJson(context, list);
    const { stacks } = list;
    if (flags.quiet) return await out.write(stacks.map(({ name }) => `${name}\n`).join(""));
    if (stacks.length === 0) return await say(context, "no stacks: croft up makes one");
    await out.write(renderTable(columns(clock.nowMs()), stacks, out));
  },
});

const tints: Readonly<Record<string, Tint>> = { healthy: "good", failed: "bad", degraded: "bad" };

function columns(nowMs: number): readonly Column<Stack>[] {
  return [
    { title: "STACK", cell: ({ name }) => name },
    { title: "STATUS", cell: ({ status }) => ({ text: status, tint: tints[status] ?? "warn" }) },
    { title: "RUNNING", cell: ({ instancesRunning, instancesWanted }) => `${instancesRunning}/${instancesWanted}` },
    { title: "GENERATION", cell: ({ generation }) => `${generation}`, align: "right" },
    {
      title: "CHANGED",
      cell: ({ updated }) => (updated === undefined ? "" : `${formatDuration(nowMs - Date.parse(updated))} ago`),
    },
    { title: "FROM", cell: ({ origin }) => ({ text: origin, tint: "dim" }) },
  ];
}
