import { setTimeout as sleep } from "node:timers/promises";
import { pssKib, withDescendants } from "../process.ts";
import { rowOf } from "../row.ts";
import type { Work } from "./ground.ts";

const restMs = 10_000;

/** What the daemons hold while they have nothing to do: must come first, while they are fresh. */
export const idle: Work = {
  name: "idle",
  measure: async ({ contenders }) => {
    await sleep(restMs);
    const figures = new Map(
      contenders.flatMap(({ name, daemonPid }) => {
        if (daemonPid === undefined) return [];
        // With what belongs to it: dockerd's own containerd, for one.
        const kib = withDescendants(daemonPid).map(pssKib);
        return [[name, kib.reduce((sum, one) => sum + one, 0) / 1024] as const];
      }),
    );
    return [rowOf("daemon idle", "MiB PSS", figures, [{ sense: "at most", factor: 90 }])];
  },
};
