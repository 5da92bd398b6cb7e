import type { Context } from "../context.ts";
import { instanceColumns } from "../instance/view.ts";
import { renderTable } from "../table.ts";

/** What runs of a stack, as a table. */
export async function printRunning(stack: string, { client, clock, out }: Context): Promise<void> {
  const { instances } = await client.instances.list({ stack, all: true });
  if (instances.length > 0) await out.write(`\n${renderTable(instanceColumns(clock.nowMs()), instances, out)}`);
}
