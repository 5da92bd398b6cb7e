import { formatSize, parseDurationMs } from "../../base/unit.ts";
import type { InstanceStats } from "../../client/message.ts";
import { argument, command as define, flag } from "../command.ts";
import { printJsonLine } from "../context.ts";
import { LiveBlock } from "../live-block.ts";
import { shownName } from "./view.ts";
import { renderTable, type Cell, type Column } from "../table.ts";

export const command = define({
  detail: "CPU is of one core: 150 % is one and a half. In a terminal the table is redrawn until Ctrl-C.",
  flags: {
    once: flag.toggle("One reading and done; always so off a terminal unless --interval is given"),
    interval: flag.parsed("DURATION", "Time between two readings, at least 200ms", parseDurationMs, { short: "n" }),
  },
  args: { instances: argument.any("INSTANCE", "All that run by default", { offers: "instance" }) },
  async run({ flags, args }, context) {
    const { client, out, json } = context;
    const once = flags.once || (!out.isTerminal && flags.interval === undefined);
    const request = {
      instances: args.instances,
      once,
      ...(flags.interval !== undefined && { intervalMs: flags.interval }),
    };
    const block = new LiveBlock(out);
    for await (const reading of client.instances.streamStats(request)) {
      if (json) {
        await printJsonLine(context, reading);
        continue;
      }
      const rows = [...reading.instances].sort((left, right) => right.cpuPercent - left.cpuPercent);
      const table = rows.length === 0 ? "nothing runs\n" : renderTable(columns, rows, out);
      if (once || !out.isTerminal) await out.write(table);
      else
        await block.draw(
          table
            .trimEnd()
            .split("\n")
            .slice(0, Math.max(2, out.rows - 2)),
        );
    }
  },
});

const columns: readonly Column<InstanceStats>[] = [
  { title: "INSTANCE", cell: shownName, yields: 1 },
  { title: "CPU", cell: ({ cpuPercent }) => percent(cpuPercent, 100), align: "right" },
  { title: "MEMORY", cell: memoryCell, align: "right" },
  { title: "OF LIMIT", cell: limitCell, align: "right", optional: true },
  { title: "PIDS", cell: ({ pids }) => `${pids}`, align: "right" },
  { title: "READ", cell: ({ readBytes }) => formatSize(readBytes), align: "right" },
  { title: "WRITTEN", cell: ({ writtenBytes }) => formatSize(writtenBytes), align: "right" },
  { title: "RECEIVED", cell: ({ receivedBytes }) => formatSize(receivedBytes), align: "right" },
  { title: "SENT", cell: ({ sentBytes }) => formatSize(sentBytes), align: "right" },
  {
    title: "OOM",
    cell: ({ oomKills }) => (oomKills === 0 ? "" : { text: `${oomKills}`, tint: "bad" }),
    optional: true,
  },
];

function memoryCell({ memoryBytes, memoryLimitBytes }: InstanceStats): Cell {
  return memoryLimitBytes === undefined
    ? formatSize(memoryBytes)
    : `${formatSize(memoryBytes)} / ${formatSize(memoryLimitBytes)}`;
}

function limitCell({ memoryBytes, memoryLimitBytes }: InstanceStats): Cell {
  return memoryLimitBytes === undefined ? "" : percent((memoryBytes / memoryLimitBytes) * 100, 90);
}

function percent(value: number, warnAt: number): Cell {
  return { text: `${value.toFixed(1)} %`, ...(value >= warnAt && { tint: "warn" as const }) };
}
