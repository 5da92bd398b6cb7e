import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { backgroundCall } from "../../base/call.ts";
import type { Ground } from "../ground.ts";
import { requireProgram } from "../namespace/program.ts";
import { engineRoot } from "../place.ts";
import { shared } from "./contract.ts";
import { machineFiles } from "./record.ts";
import { removeMachine } from "./remove.ts";
import { isZombie, startMicrovm, stateOf } from "./start.ts";

/** `run`: creates by `argv`, starts, and unless it is to go on alone, waits for the end and takes all away. */
export async function runMicrovm(ground: Ground, id: string, argv: readonly string[]): Promise<number> {
  const { line, place, host } = ground;
  const [program = "", ...args] = argv;
  const { status } = spawnSync(program, args, { stdio: "inherit" });
  if (status !== 0) return status ?? 1;
  await startMicrovm(ground, id);
  if (line.flags.has("detach")) return 0;
  const crun = [requireProgram("crun", host), "--root", engineRoot(place, "microvm")];
  const pid = Number(stateOf(crun, id)["pid"]);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const) {
    process.on(signal, () => spawnSync(crun[0] ?? "", [...crun.slice(1), "kill", id, "KILL"], { stdio: "ignore" }));
  }
  const call = backgroundCall();
  const runs = (): boolean => pid > 0 && existsSync(`/proc/${pid}`) && !isZombie(pid);
  while (runs()) {
    await call.clock.sleep(50, call.signal);
  }
  const code = exitCode(join(machineFiles(place, id).shared, shared.exit));
  if (!line.flags.has("keep")) {
    removeMachine({ ...ground, line: { ...line, command: "delete", flags: new Map([["force", [true]]]) } }, id);
  }
  return code;
}

function exitCode(path: string): number {
  try {
    return Number(readFileSync(path, "utf8").split(" ")[0]);
  } catch {
    return 137;
  }
}
