import { fileURLToPath } from "node:url";
import { runSync } from "../process.ts";
import { type Row, rounded } from "../row.ts";
import type { Work } from "./ground.ts";

const alone = fileURLToPath(new URL("../plan.ts", import.meta.url));
/** Per instance, of a stack ten times as large: what is linear stays at 1. */
const linearFactor = 1.5;

interface Line {
  readonly work: string;
  readonly croft: number;
  readonly reach?: number;
  readonly ok?: boolean;
}

/** The loop itself, on engines that cost nothing; in a process of its own, as it fills the heap. */
export const plan: Work = {
  name: "plan",
  measure: async () => {
    const argv = [process.execPath, "--disable-warning=ExperimentalWarning", alone];
    const lines = runSync({ argv }).trim().split("\n");
    const noops = lines.map((line) => JSON.parse(line) as Line).filter(({ work }) => work.startsWith("plan"));
    return noops.map((line, at) => rowOf(line, noops[at - 1]));
  },
};

/** With its own reach where it has one; otherwise it must have grown no faster than the stack, which is ten times the last. */
function rowOf({ work, croft, reach, ok }: Line, last: Line | undefined): Row {
  const row = { work, unit: "ms", croft: rounded(croft), peers: {}, ratio: {} };
  if (reach !== undefined) return { ...row, reach: `< ${reach} ms`, ok: ok === true };
  if (last === undefined) return { ...row, reach: "", ok: null };
  return { ...row, reach: `≤ ${linearFactor} × linear`, ok: croft <= linearFactor * 10 * last.croft };
}
