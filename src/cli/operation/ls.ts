import { formatDuration } from "../../base/unit.ts";
import type { Operation } from "../../client/message.ts";
import { command as define } from "../command.ts";
import { printJson, say } from "../context.ts";
import type { Tint } from "../paint.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  async run(_, context) {
    const { client, out, clock } = context;
    const list = await client.operations.list();
    if (context.json) return await printJson(context, list);
    if (list.operations.length === 0) return await say(context, "no operations");
    await out.write(renderTable(columns(clock.nowMs()), list.operations, out));
  },
});

const tints: Readonly<Record<string, Tint>> = { succeeded: "good", failed: "bad", running: "accent" };

function columns(nowMs: number): readonly Column<Operation>[] {
  return [
    { title: "OPERATION", cell: ({ id }) => id },
    { title: "KIND", cell: ({ kind }) => kind, yields: 1 },
    { title: "SUBJECT", cell: ({ subject }) => subject, yields: 2 },
    { title: "STATUS", cell: ({ status }) => ({ text: status, tint: tints[status] ?? "warn" }) },
    {
      title: "STARTED",
      cell: ({ started }) => (started === undefined ? "" : `${formatDuration(nowMs - Date.parse(started))} ago`),
    },
    { title: "TOOK", cell: tookCell, align: "right" },
    {
      title: "NOTE",
      cell: ({ fault }) => ({ text: fault?.message.split("\n")[0] ?? "", tint: "dim" }),
      yields: 3,
      optional: true,
    },
  ];
}

function tookCell({ started, finished }: Operation): string {
  return started === undefined || finished === undefined
    ? ""
    : formatDuration(Date.parse(finished) - Date.parse(started));
}
