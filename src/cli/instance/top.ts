import { formatDuration, formatSize } from "../../base/unit.ts";
import type { Process } from "../../client/message.ts";
import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  detail: "Numbers of processes are those of the host, in a microVM those of its own kernel.",
  args: { instance: argument.one("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  async run({ args }, context) {
    const { client, out, clock } = context;
    const list = await client.instances.listProcesses({ instance: args.instance });
    if (context.json) return await printJson(context, list);
    await out.write(renderTable(columns(clock.nowMs()), list.processes, out));
  },
});

function columns(nowMs: number): readonly Column<Process>[] {
  return [
    { title: "PID", cell: ({ pid }) => `${pid}`, align: "right" },
    { title: "PARENT", cell: ({ parentPid }) => `${parentPid}`, align: "right" },
    { title: "USER", cell: ({ user }) => user },
    { title: "CPU TIME", cell: ({ cpuMs }) => formatDuration(cpuMs), align: "right" },
    { title: "MEMORY", cell: ({ memoryBytes }) => formatSize(memoryBytes), align: "right" },
    {
      title: "AGE",
      cell: ({ started }) => (started === undefined ? "" : formatDuration(nowMs - Date.parse(started))),
      align: "right",
    },
    { title: "COMMAND", cell: ({ command }) => command, yields: 1 },
  ];
}
