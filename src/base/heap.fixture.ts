import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { settled } from "./test-clock.ts";

/** How much memory what somebody still holds takes: for tests of what is kept. */
export async function heapBytes(): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  await settled();
  collect();
  return process.memoryUsage().heapUsed;
}
