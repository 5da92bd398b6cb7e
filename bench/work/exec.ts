import { busybox } from "../contender/contender.ts";
import { runAll, timeMs } from "../process.ts";
import { rowOf } from "../row.ts";
import { interleave, type Work } from "./ground.ts";

/** One short program in a container that runs. */
export const exec: Work = {
  name: "exec",
  measure: async ({ contenders, rounds }) => {
    const id = "exec-here";
    for (const contender of contenders) await runAll([contender.runDetached(id, [busybox, "sleep", "3600"])]);
    const once = (contender: (typeof contenders)[number]): number => timeMs(contender.exec(id, [busybox, "true"]));
    for (const contender of contenders) once(contender);
    const figures = await interleave(contenders, rounds, once);
    for (const contender of contenders) contender.remove([id]);
    return [rowOf("exec", "ms", figures, [{ sense: "at most", factor: 0.4, of: "docker" }])];
  },
};
