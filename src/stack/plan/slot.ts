import { parseInstanceId } from "../../base/id.ts";
import type { DesiredInstance, Desired, Observed, ObservedInstance } from "./step.ts";

/**
 * The place of one replica: what should be in it, and all that is. Usually one instance; during a `start-first` update
 * two, and after interruptions perhaps more.
 */
export interface Slot {
  readonly ordinal: number;
  readonly desired?: DesiredInstance;
  /** The instance that has the desired id, when it is whole. */
  readonly current?: ObservedInstance;
  /** It has the desired id but is half-made: in the way of making it again. */
  readonly broken?: ObservedInstance;
  /** Instances of another specification. */
  readonly others: readonly ObservedInstance[];
}

/** All slots of a section by its name: first those desired, in the order of the file, then what is merely there. */
export function pairSlots(desired: Desired, observed: Observed): Map<string, Slot[]> {
  const seen = new Map<string, ObservedInstance[]>();
  for (const instance of observed.instances) {
    const parts = parseInstanceId(instance.id);
    // An id that is not one of ours has a place of its own, where nothing is desired: it will be removed.
    const place = parts === undefined ? instance.id : `${parts.name}.${parts.ordinal}`;
    const list = seen.get(place);
    if (list === undefined) seen.set(place, [instance]);
    else list.push(instance);
  }
  const slots = new Map<string, Slot[]>();
  const put = (name: string, slot: Slot): void => {
    const list = slots.get(name);
    if (list === undefined) slots.set(name, [slot]);
    else list.push(slot);
  };
  for (const instance of desired.instances) {
    const place = `${instance.name}.${instance.ordinal}`;
    const here = seen.get(place) ?? [];
    seen.delete(place);
    const own = here.find((candidate) => candidate.id === instance.id);
    put(instance.name, {
      ordinal: instance.ordinal,
      desired: instance,
      ...(own === undefined ? {} : own.intact ? { current: own } : { broken: own }),
      others: here.filter((candidate) => candidate !== own),
    });
  }
  for (const [place, others] of seen) {
    const parts = others[0] === undefined ? undefined : parseInstanceId(others[0].id);
    put(parts?.name ?? place, { ordinal: parts?.ordinal ?? 0, others });
  }
  return slots;
}

/** Whether it works, as far as its section asks. A check just added in place has not answered yet. */
export function isHealthy(instance: ObservedInstance, desired: DesiredInstance): boolean {
  if (instance.status !== "running") return false;
  return desired.section.health === undefined || instance.health === "healthy";
}

/** Whether it ended by itself and its policy leaves it so. What it ended with is unknown after a crash: counts as failure. */
export function staysEnded(instance: ObservedInstance, desired: DesiredInstance): boolean {
  if (instance.status !== "exited") return false;
  const { restart } = desired.section;
  return restart === "never" || (restart === "on-failure" && instance.exitCode === 0);
}

export function isUp(instance: ObservedInstance): boolean {
  return instance.status === "running" || instance.status === "frozen";
}
