import type { Draft } from "./draft.ts";
import type { Tenancy } from "./ground.ts";
import { isUp } from "./slot.ts";
import type { Slot } from "./slot.ts";
import type { Cost, ObservedInstance } from "./step.ts";

/** Stops and removes instances, and remembers which stops others' stops must follow: dependents end first. */
export class Teardown {
  readonly #draft: Draft;
  readonly #tenancy: Tenancy;
  /** Section name → stops of instances that needed it. */
  readonly #dependentStops = new Map<string, string[]>();

  constructor(draft: Draft, tenancy: Tenancy) {
    this.#draft = draft;
    this.#tenancy = tenancy;
  }

  /** Stops those that are up, removes all; returns the keys of the removals. */
  remove(instances: readonly ObservedInstance[], after: readonly string[], cost: Cost, why: string): readonly string[] {
    return instances.map((instance) => {
      const { id } = instance;
      const stop = isUp(instance)
        ? this.#draft.add({ kind: "stop-instance", instance: id }, cost, why, { after })
        : undefined;
      const key = this.#draft.add({ kind: "remove-instance", instance: id }, cost, why, {
        after: stop === undefined ? after : [stop],
      });
      this.#tenancy.removed(instance, key);
      for (const name of instance.section?.needs ?? []) {
        const stops = this.#dependentStops.get(name);
        if (stops === undefined) this.#dependentStops.set(name, [stop ?? key]);
        else stops.push(stop ?? key);
      }
      return key;
    });
  }

  /**
   * Removes sections that are no longer in the file, dependents first. `mayWait`: whether they may also wait for old
   * instances of sections that stay; not when a network changes its addresses, as those may in turn wait for it.
   */
  removeSections(lost: ReadonlyMap<string, readonly Slot[]>, mayWait: boolean): void {
    if (!mayWait) this.#dependentStops.clear();
    const dependents = new Map<string, Set<string>>();
    for (const [name, slots] of lost) {
      for (const needed of slots.flatMap((slot) => slot.others).flatMap((instance) => instance.section?.needs ?? [])) {
        if (!lost.has(needed)) continue;
        const names = dependents.get(needed);
        if (names === undefined) dependents.set(needed, new Set([name]));
        else names.add(name);
      }
    }
    // Instances of different generations may need each other in a circle. Whoever is met first then waits for nobody
    // further round: visiting each section once leaves no circle in the plan.
    const visited = new Set<string>();
    const visit = (name: string): void => {
      if (visited.has(name)) return;
      visited.add(name);
      for (const dependent of dependents.get(name) ?? []) visit(dependent);
      const after = this.#dependentStops.get(name) ?? [];
      for (const slot of lost.get(name) ?? []) {
        this.remove(slot.others, [...after], "none", "no longer wanted");
      }
    };
    for (const name of lost.keys()) visit(name);
  }
}
