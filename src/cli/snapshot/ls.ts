import { formatDuration, formatSize } from "../../base/unit.ts";
import type { Snapshot } from "../../client/message.ts";
import { argument, command as define } from "../command.ts";
import { printJson, say } from "../context.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  args: { machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }) },
  async run({ args }, context) {
    const { client, out, clock } = context;
    const list = await client.machines.listSnapshots({ machine: args.machine });
    if (context.json) return await printJson(context, list);
    if (list.snapshots.length === 0) {
      return await say(context, `no snapshots: croft snapshot create ${args.machine} NAME takes one`);
    }
    await out.write(renderTable(columns(clock.nowMs()), list.snapshots, out));
  },
});

function columns(nowMs: number): readonly Column<Snapshot>[] {
  return [
    { title: "SNAPSHOT", cell: ({ name }) => name, yields: 1 },
    { title: "KEEPS", cell: ({ memory }) => (memory ? "disks and memory" : "disks") },
    {
      title: "AGE",
      cell: ({ created }) => (created === undefined ? "" : formatDuration(nowMs - Date.parse(created))),
      align: "right",
    },
    { title: "SIZE", cell: ({ usedBytes }) => (usedBytes === undefined ? "" : formatSize(usedBytes)), align: "right" },
  ];
}
