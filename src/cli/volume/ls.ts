import { formatSize } from "../../base/unit.ts";
import type { Volume } from "../../client/message.ts";
import { command as define, flag } from "../command.ts";
import { printJson, say } from "../context.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  flags: {
    quiet: flag.toggle("Print names only", { short: "q" }),
    stack: flag.text("STACK", "Only those of this stack", { short: "s", offers: "stack" }),
  },
  async run({ flags }, context) {
    const { client, out } = context;
    const list = await client.volumes.list(flags.stack === undefined ? {} : { stack: flags.stack });
    if (context.json) return await printJson(context, list);
    const { volumes } = list;
    if (flags.quiet) return await out.write(volumes.map(({ stack, name }) => `${stack}/${name}\n`).join(""));
    if (volumes.length === 0) return await say(context, "no volumes");
    await out.write(renderTable(columns, volumes, out));
  },
});

const columns: readonly Column<Volume>[] = [
  { title: "VOLUME", cell: ({ stack, name }) => `${stack}/${name}`, yields: 1 },
  { title: "USED", cell: ({ usedBytes }) => (usedBytes === undefined ? "–" : formatSize(usedBytes)), align: "right" },
  { title: "SIZE", cell: ({ sizeBytes }) => (sizeBytes === undefined ? "–" : formatSize(sizeBytes)), align: "right" },
  { title: "PROTECTED", cell: ({ protect }) => (protect ? { text: "yes", tint: "good" } : ""), optional: true },
  { title: "USED BY", cell: ({ usedBy }) => usedBy.join(" "), yields: 2, optional: true },
  { title: "PATH", cell: ({ path }) => ({ text: path, tint: "dim" }), yields: 3 },
];
