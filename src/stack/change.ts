import { instanceFields, type FieldChange, type InstanceField } from "./field.ts";
import { machineFields, microvmFields } from "./guest-field.ts";
import type { InstanceKind, InstanceSection } from "./model.ts";

type Member = keyof InstanceSection;

export const fieldsByKind: Readonly<Record<InstanceKind, Readonly<Record<string, InstanceField>>>> = {
  container: instanceFields,
  microvm: microvmFields,
  vm: machineFields,
};

/** Members that no field of the language sets; they come from the section's kind and from `croft run`. */
const fixedMembers: readonly Member[] = ["kind", "terminal", "stdin"];

const changes: Readonly<Record<InstanceKind, ReadonlyMap<Member, FieldChange>>> = {
  container: changesOf(instanceFields),
  microvm: changesOf(microvmFields),
  vm: changesOf(machineFields),
};

function changesOf(fields: Readonly<Record<string, InstanceField>>): ReadonlyMap<Member, FieldChange> {
  const members = new Map<Member, FieldChange>(fixedMembers.map((member) => [member, "recreate"]));
  // Several fields may end in one member, which then changes as the first of them does.
  for (const { member, change } of Object.values(fields)) if (!members.has(member)) members.set(member, change);
  return members;
}

/** Members of a section of this kind that change so, in the order of the reference. */
export function membersThatChange(kind: InstanceKind, ...how: readonly FieldChange[]): readonly Member[] {
  return [...changes[kind]].flatMap(([member, change]) => (how.includes(change) ? [member] : []));
}

/** How a member changes; `hot` for one that only its reader in the loop knows. */
export function changeOf(kind: InstanceKind, member: Member): FieldChange {
  return changes[kind].get(member) ?? "hot";
}
