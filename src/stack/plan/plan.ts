import type { InstanceKind } from "../model.ts";
import { Draft } from "./draft.ts";
import { planGround, planGroundRemoval, Tenancy } from "./ground.ts";
import { ServicePlanner } from "./service.ts";
import { pairSlots } from "./slot.ts";
import type { Slot } from "./slot.ts";
import type { DesiredInstance, Plan, PlanFunction } from "./step.ts";
import { Teardown } from "./teardown.ts";

/**
 * Decides what leads from what is there to what should be. Pure: apply, rollback, restart, drift repair and the way on
 * after a crash are all this function with other arguments. It is empty exactly when all that should run is running and
 * healthy, and nothing is there that should not be; an instance that ended and stays so, or is frozen, is left alone.
 *
 * Linear in the instances and in their `needs`.
 */
export const plan: PlanFunction = (desired, observed, options): Plan => {
  const draft = new Draft();
  const tenancy = new Tenancy();
  const teardown = new Teardown(draft, tenancy);
  const ground = planGround(desired, observed, draft);
  const services = new ServicePlanner(draft, ground, teardown);
  const slots: Map<string, readonly Slot[]> = pairSlots(desired, observed);
  const wanted = new Map<string, DesiredInstance>();
  for (const instance of desired.instances) if (!wanted.has(instance.name)) wanted.set(instance.name, instance);

  const lost = new Map<string, readonly Slot[]>();
  for (const [name, list] of slots) {
    const kept = refuseProtected(name, list, wanted.get(name), draft);
    if (!wanted.has(name)) lost.set(name, kept);
    else if (kept !== list) slots.set(name, kept);
  }

  const gates = new Map<string, readonly string[]>();
  const readyOf = (name: string): readonly string[] => {
    const known = gates.get(name);
    if (known !== undefined) return known;
    const first = wanted.get(name);
    if (first === undefined) return [];
    // A circle of needs is refused when a file is checked; here it must only not hang.
    gates.set(name, []);
    const gate = first.section.needs.flatMap(readyOf);
    const list = slots.get(name) ?? [];
    const ready = [...services.plan(list, gate), ...services.awaitFailed(list)];
    gates.set(name, ready);
    return ready;
  };
  for (const name of wanted.keys()) readyOf(name);
  services.orderStops(wanted.values());

  teardown.removeSections(lost, ground.readdressed.size === 0);
  planGroundRemoval(desired, observed, options, ground, tenancy, draft);
  return draft.finish();
};

function kindOf(slots: readonly Slot[]): InstanceKind {
  return (
    slots.flatMap(({ others }) => others).find(({ section }) => section !== undefined)?.section?.kind ?? "container"
  );
}

/** The slots that may be removed when they must be. Scaling down asks the new section, all else what was last applied. */
function refuseProtected(
  name: string,
  slots: readonly Slot[],
  wanted: DesiredInstance | undefined,
  draft: Draft,
): readonly Slot[] {
  const isProtected = (slot: Slot): boolean =>
    slot.desired === undefined &&
    (wanted === undefined
      ? slot.others.some((instance) => instance.section?.protect === true)
      : wanted.section.protect);
  if (!slots.some(isProtected)) return slots;
  draft.refuse(
    `${wanted?.section.kind ?? kindOf(slots)} ${name}`,
    wanted === undefined
      ? "it is protected, and would be removed"
      : "it is protected, and replicas of it would be removed",
    "set protect = false on it, run croft up, and try again",
  );
  return slots.filter((slot) => !isProtected(slot));
}
