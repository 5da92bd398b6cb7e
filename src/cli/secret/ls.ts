import { formatDuration } from "../../base/unit.ts";
import type { Secret } from "../../client/message.ts";
import { command as define, flag } from "../command.ts";
import { printJson, say } from "../context.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  detail: "Names and versions; values never come out.",
  flags: { stack: flag.text("STACK", "Only those of this stack", { short: "s", offers: "stack" }) },
  async run({ flags }, context) {
    const { client, out, clock } = context;
    const list = await client.secrets.list(flags.stack === undefined ? {} : { stack: flags.stack });
    if (context.json) return await printJson(context, list);
    if (list.secrets.length === 0) return await say(context, "no secrets");
    await out.write(renderTable(columns(clock.nowMs()), list.secrets, out));
  },
});

function columns(nowMs: number): readonly Column<Secret>[] {
  return [
    { title: "SECRET", cell: ({ stack, name }) => `${stack}/${name}`, yields: 1 },
    { title: "VERSION", cell: ({ version }) => version.slice(0, 12) },
    {
      title: "SET",
      cell: ({ created }) => (created === undefined ? "" : `${formatDuration(nowMs - Date.parse(created))} ago`),
    },
    { title: "KEPT", cell: ({ versions }) => `${versions}`, align: "right" },
  ];
}
