import { formatDuration, formatSize } from "../../base/unit.ts";
import type { Host } from "../../client/message.ts";
import { command as define } from "../command.ts";
import { printJson } from "../context.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  detail: "The machine whose daemon answers.",
  async run(_, context) {
    const { client, out, clock } = context;
    const host = await client.host.get();
    if (context.json) return await printJson(context, { hosts: [host] });
    await out.write(renderTable(columns(clock.nowMs()), [host], out));
  },
});

function columns(nowMs: number): readonly Column<Host>[] {
  return [
    { title: "HOST", cell: ({ name }) => name, yields: 1 },
    { title: "VERSION", cell: ({ version }) => version },
    { title: "UP", cell: ({ started }) => (started === undefined ? "" : formatDuration(nowMs - Date.parse(started))) },
    { title: "RUNNING", cell: ({ instancesRunning }) => `${instancesRunning}`, align: "right" },
    { title: "ENGINES", cell: ({ engines }) => [...new Set(Object.values(engines))].join(", ") },
    { title: "CPUS", cell: ({ cpus }) => `${cpus}`, align: "right" },
    { title: "MEMORY", cell: ({ memoryBytes }) => formatSize(memoryBytes), align: "right" },
    { title: "DISK FREE", cell: ({ diskFreeBytes }) => formatSize(diskFreeBytes), align: "right" },
    { title: "KERNEL", cell: ({ kernel }) => ({ text: kernel, tint: "dim" }), yields: 2 },
  ];
}
