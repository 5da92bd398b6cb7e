import { exists } from "../../host/door.ts";
import type { RuntimeName } from "./program.ts";

/** The file whose presence says that the runtime finished making the container. */
const records: Readonly<Record<RuntimeName, string>> = { crun: "status", runc: "state.json" };

/** Whether the runtime was killed while it made this container: it does not know it, but something may be there. */
export function isHalfMade(root: string, name: RuntimeName, id: string): boolean {
  const directory = `${root}/${id}`;
  return exists(directory) && !exists(`${directory}/${records[name]}`);
}
