import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { backgroundCall } from "../../base/call.ts";
import type { Bundle } from "../config/bundle.ts";
import type { Ground } from "../ground.ts";
import { requireProgram } from "../namespace/program.ts";
import { engineRoot } from "../place.ts";
import { exitCodeIn } from "./exit-code.ts";
import { createMicrovm } from "./make.ts";
import { machineFiles } from "./record.ts";
import { removeByForce } from "./remove.ts";
import { isZombie, startMicrovm, stateOf } from "./start.ts";

/** `run`: creates, starts, and unless it is to go on alone, waits for the end and takes all away. */
export async function runMicrovm(ground: Ground, id: string, bundle: Bundle): Promise<number> {
  const { line, place, host } = ground;
  const crun = [requireProgram("crun", host), "--root", engineRoot(place, "microvm")];
  let isMade = false;
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const) {
    process.on(signal, () => {
      // So far nothing is there.
      if (!isMade) process.exit(128 + constants.signals[signal]);
      // Also while it boots: whoever waits for it sees that it ended.
      spawnSync(crun[0] ?? "", [...crun.slice(1), "kill", id, "KILL"], { stdio: "ignore" });
    });
  }
  const status = await createMicrovm(ground, id, bundle);
  if (status !== 0) return status;
  isMade = true;
  try {
    await startMicrovm(ground, id);
  } catch (error) {
    removeByForce(ground, id);
    throw error;
  }
  if (line.flags.has("detach")) return 0;
  const pid = Number(stateOf(crun, id)["pid"]);
  const call = backgroundCall();
  const runs = (): boolean => pid > 0 && existsSync(`/proc/${pid}`) && !isZombie(pid);
  while (runs()) {
    await call.clock.sleep(50, call.signal);
  }
  const code = exitCodeIn(machineFiles(place, id).shared);
  if (!line.flags.has("keep")) removeByForce(ground, id);
  return code;
}
