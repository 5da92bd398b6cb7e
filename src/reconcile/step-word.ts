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

/** Steps about networks and volumes. What stands on them has a time to become healthy; these have so many attempts. */
export const groundSteps: ReadonlySet<string> = new Set([
  "create-network",
  "update-network",
  "remove-network",
  "create-volume",
  "resize-volume",
  "remove-volume",
  "remove-disk",
]);

export const doingWords: Readonly<Partial<Record<Step["action"]["kind"], string>>> = {
  "create-instance": "creating",
  "start-instance": "starting",
  "stop-instance": "stopping",
  "suspend-instance": "suspending",
  "revert-instance": "going back",
  "remove-instance": "removing",
  "repair-instance": "repairing",
  "remove-volume": "removing",
  "remove-disk": "removing",
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
  "create-network": "created",
  "update-network": "updated",
  "remove-network": "removed",
  "create-volume": "created",
  "resize-volume": "updated",
  "remove-volume": "removed",
  "remove-disk": "removed",
};

/** What a step works on: two steps on the same thing are never under way together. */
export function subjectOfStep({ action }: Step): string {
  if ("instance" in action) return action.instance;
  if ("network" in action) return `network ${action.network}`;
  return `volume ${action.volume}`;
}
