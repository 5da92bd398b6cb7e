import type { Step } from "../stack/plan/step.ts";

/** Kinds of steps, and what is said of them while they are under way and when they are done. */

/** Steps that may end a process. */
export const endingSteps: ReadonlySet<string> = new Set([
  "stop-instance",
  "suspend-instance",
  "revert-instance",
  "repair-instance",
  "remove-instance",
]);

export const instanceSteps = [
  "create-instance",
  "start-instance",
  "update-instance",
  "repair-instance",
  "stop-instance",
  "suspend-instance",
  "revert-instance",
  "remove-instance",
] as const;

export const doingWords: Readonly<Partial<Record<Step["action"]["kind"], string>>> = {
  "create-instance": "creating",
  "start-instance": "starting",
  "stop-instance": "stopping",
  "suspend-instance": "suspending",
  "revert-instance": "going back",
  "remove-instance": "removing",
  "repair-instance": "repairing",
};

export const doneWords: Readonly<Partial<Record<Step["action"]["kind"], string>>> = {
  "create-instance": "created",
  "start-instance": "started",
  "stop-instance": "stopped",
  "suspend-instance": "suspended",
  "revert-instance": "gone back",
  "remove-instance": "removed",
  "repair-instance": "repaired",
  "update-instance": "updated",
};

/** What a step works on: two steps on the same thing are never under way together. */
export function subjectOfStep({ action }: Step): string {
  if ("instance" in action) return action.instance;
  if ("network" in action) return `network ${action.network}`;
  return `volume ${action.volume}`;
}
