import { busybox } from "../contender/contender.ts";
import { timeMs } from "../process.ts";
import { rowOf } from "../row.ts";
import { interleave, type Work } from "./ground.ts";

/** One short program, in a container with an address of its own, that leaves nothing. */
export const run: Work = {
  name: "run",
  measure: async ({ contenders, rounds }) => {
    // The first of each makes networks and fills caches.
    for (const contender of contenders) timeMs(contender.runOnce("first", [busybox, "true"]));
    const figures = await interleave(contenders, rounds, (contender, round) =>
      timeMs(contender.runOnce(`once-${round}`, [busybox, "true"])),
    );
    const bounds = [
      { sense: "at most", factor: 0.25, of: "docker" },
      { sense: "at most", factor: 0.6, of: "ctr" },
    ] as const;
    return [rowOf("run --rm, own bridge address", "ms", figures, bounds)];
  },
};
