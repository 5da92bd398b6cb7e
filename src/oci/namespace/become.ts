import { type Ground, keptFds } from "../ground.ts";
import type { RuntimeName } from "./program.ts";

/**
 * Becomes crun or runc. Either begins by making a copy of itself that no container can write to, and by starting anew as
 * that copy: a mount and a second start of the program. crun sees when it is such a copy already, and one in memory costs
 * less; runc is too large for it.
 */
export function becomeRuntime({ line, handover }: Ground, name: RuntimeName, argv: readonly string[]): never {
  return handover.become(argv, process.env, keptFds(line), name === "crun");
}
