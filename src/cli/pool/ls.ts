import { formatSize } from "../../base/unit.ts";
import type { Pool } from "../../client/message.ts";
import { command as define } from "../command.ts";
import { printJson } from "../context.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  async run(_, context) {
    const list = await context.client.pools.list();
    if (context.json) return await printJson(context, list);
    await context.out.write(renderTable(columns, list.pools, context.out));
  },
});

const columns: readonly Column<Pool>[] = [
  { title: "POOL", cell: ({ name }) => name },
  { title: "FREE", cell: ({ freeBytes }) => formatSize(freeBytes), align: "right" },
  { title: "SIZE", cell: ({ sizeBytes }) => formatSize(sizeBytes), align: "right" },
  { title: "ROOTS", cell: ({ roots }) => `${roots}`, align: "right" },
  { title: "VOLUMES", cell: ({ volumes }) => `${volumes}`, align: "right" },
  { title: "PATH", cell: ({ path }) => ({ text: path, tint: "dim" }), yields: 1 },
];
