import type { Network } from "../../client/message.ts";
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
    const list = await client.networks.list(flags.stack === undefined ? {} : { stack: flags.stack });
    if (context.json) return await printJson(context, list);
    const { networks } = list;
    if (flags.quiet) return await out.write(networks.map(({ stack, name }) => `${stack}/${name}\n`).join(""));
    if (networks.length === 0) return await say(context, "no networks");
    await out.write(renderTable(columns, networks, out));
  },
});

const columns: readonly Column<Network>[] = [
  { title: "NETWORK", cell: ({ stack, name }) => `${stack}/${name}`, yields: 1 },
  { title: "SUBNET", cell: ({ subnet }) => subnet },
  { title: "WAY OUT", cell: ({ internal }) => (internal ? { text: "none", tint: "warn" } : "yes") },
  {
    title: "MEMBERS",
    cell: ({ members }) => members.map(({ instance, address }) => `${instance} ${address}`).join(", "),
    yields: 2,
  },
];
