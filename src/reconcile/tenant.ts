import type { InstanceSection } from "../stack/model.ts";
import type { Plan } from "../stack/plan/step.ts";
import { networkIdOf, volumeIdOf } from "./parts.ts";
import type { StackLoop } from "./stack-loop.ts";
import type { StackState } from "./stack-state.ts";

/**
 * What a plan would take from under other stacks' instances, as refusals: runs join networks of stacks, and share
 * volumes. Such a step could not succeed as long as they are there, or would take their data.
 */
export function occupied(planned: Plan, stack: string, loops: Iterable<StackLoop>): Plan["refusals"] {
  const lost = new Map<string, string>();
  for (const { action } of planned.steps) {
    if (action.kind === "remove-network") lost.set(`network ${action.network}`, action.network);
    if (action.kind === "remove-volume") lost.set(`volume ${action.volume}`, action.volume);
  }
  if (lost.size === 0) return [];
  const tenants = new Map<string, string[]>();
  for (const { state } of loops) {
    if (state.name === stack) continue;
    for (const ground of groundOf(state)) {
      if (lost.has(ground)) tenants.set(ground, [...(tenants.get(ground) ?? []), state.name]);
    }
  }
  return [...tenants].map(([ground, names]) => ({
    subject: ground.replace(`${stack}.`, ""),
    why: `it would be removed, but ${names.join(", ")} ${names.length === 1 ? "uses" : "use"} it`,
    hint: `remove what uses it first: croft rm --force ${names.join(" ")}`,
  }));
}

/** Networks and volumes that instances of a stack stand on, or are to stand on: `network shop.back`. */
function groundOf(state: StackState): ReadonlySet<string> {
  const { record, current } = state;
  const ground = new Set<string>();
  // What is on its way out is waited for by the step itself.
  if (record === undefined || record.status === "removing") return ground;
  const sections: InstanceSection[] =
    record.status === "down" ? [] : Object.values(current?.generation.spec.instances ?? {});
  for (const id of state.instanceIds()) {
    const section = state.instance(id)?.section;
    if (section !== undefined) sections.push(section);
  }
  for (const { networks, mounts } of sections) {
    for (const name of networks) ground.add(`network ${networkIdOf(state.name, name)}`);
    for (const mount of mounts) {
      if (mount.kind === "volume") ground.add(`volume ${volumeIdOf(state.name, mount.volume)}`);
    }
  }
  return ground;
}
