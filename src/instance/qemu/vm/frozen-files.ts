import { existsSync, rmSync, writeFileSync } from "node:fs";
import { backgroundCall, type Call, type Clock, withDeadline } from "../../../base/call.ts";
import { isFault } from "../../../base/fault.ts";
import { type Agent, withAgent } from "./agent.ts";
import type { MachinePaths } from "./places.ts";

/** How long a guest may stand with frozen file systems, and take to freeze them. */
const freezeTimeoutMs = 10_000;

type Place = Pick<MachinePaths, "agentSocket" | "frozenFile">;

/**
 * With the guest's file systems at rest, where it has an agent that can do that. However it ends they are thawed, or
 * `areFilesFrozen` says that they may not be: nothing in a guest works that waits for a file system.
 */
export async function withFrozenFiles(place: Place, call: Call, work: () => Promise<void>): Promise<void> {
  const done = await withAgent(place.agentSocket, call, async (agent) => {
    // Before they are: whoever kills us now leaves word.
    writeFileSync(place.frozenFile, "", { mode: 0o600 });
    const frozen = await tryFreeze(agent, place, call);
    try {
      await work();
    } finally {
      if (frozen) await thaw(agent, place, 1, call.clock);
    }
    return true;
  });
  if (done === undefined) await work();
}

/** False, and nothing is frozen, when the guest cannot. */
async function tryFreeze(agent: Agent, place: Place, call: Call): Promise<boolean> {
  try {
    using bounded = withDeadline(call, freezeTimeoutMs, "freeze the guest's file systems");
    await agent.execute("guest-fsfreeze-freeze", {}, bounded);
    return true;
  } catch (error) {
    // A guest that cannot is like one whose power fails: its journals are made for that. One that did not answer may be about
    // to freeze them, and answers that first.
    if (isFault(error, "cancelled") || isFault(error, "timeout")) await thaw(agent, place, 2, call.clock);
    else rmSync(place.frozenFile, { force: true });
    if (isFault(error, "cancelled")) throw error;
    return false;
  }
}

/** Never throws. Not by the call of whoever had them frozen, who may have given up; the last of so many answers says that it is done. */
async function thaw(agent: Agent, place: Place, answers: number, clock: Clock): Promise<void> {
  using bounded = withDeadline(backgroundCall(clock), freezeTimeoutMs, "thaw the guest's file systems");
  try {
    for (let number = 0; number < answers; number += 1) await agent.execute("guest-fsfreeze-thaw", {}, bounded);
    rmSync(place.frozenFile, { force: true });
  } catch {
    // It was told so, and is told again by whoever looks next.
  }
}

/** Whether somebody had them frozen of whom nobody knows that he had them thawed. */
export function areFilesFrozen({ frozenFile }: Pick<Place, "frozenFile">): boolean {
  return existsSync(frozenFile);
}

/** Thaws what a daemon left that was killed; what does not run has nothing frozen. To be repeated while `areFilesFrozen`. */
export async function thawFiles(place: Place, isRunning: boolean, call: Call): Promise<void> {
  if (!areFilesFrozen(place)) return;
  if (isRunning) await withAgent(place.agentSocket, call, (agent) => thaw(agent, place, 1, call.clock));
  else rmSync(place.frozenFile, { force: true });
}
