import { changeOf, membersThatChange } from "../change.ts";
import type { DiskSection, InstanceSection } from "../model.ts";
import { formatSize } from "../../base/unit.ts";
import { describeChange, diffInstance, same } from "./diff.ts";
import type { Draft } from "./draft.ts";
import { isUp, type Slot } from "./slot.ts";
import type { DesiredInstance, ObservedInstance } from "./step.ts";

type Member = keyof InstanceSection;

/** What changes on the instance that is there, without making another. */
export interface Alteration {
  readonly fields: readonly Member[];
  /** `restart`: it has to be stopped for it. */
  readonly cost: "hot" | "restart";
  readonly why: string;
}

/** What has to change on an instance of the right id; undefined when it is as it should be. Restarts only what is up. */
export function alterationOf(current: ObservedInstance, desired: DesiredInstance): Alteration | undefined {
  const { section } = desired;
  const was = current.section;
  const fields = alterable[section.kind].filter((member) => was === undefined || !same(was[member], section[member]));
  if (fields.length === 0) return undefined;
  const changes = was === undefined ? [] : diffInstance({ section: was }, { section });
  const touched = changes.filter(({ field }) => !field.startsWith("replicas") && !field.startsWith("update"));
  const why = was === undefined ? "what it was last asked to be is not known" : touched.map(describeChange).join(", ");
  const isHot = !isUp(current) || fields.every((member) => isHotNow(member, current, desired));
  return { fields, cost: isHot ? "hot" : "restart", why };
}

/** Fields an instance keeps for itself. How many replicas there are, and how they are updated, only the planner reads. */
const alterable = {
  container: alterableOf("container"),
  microvm: alterableOf("microvm"),
  vm: alterableOf("vm"),
};

function alterableOf(kind: InstanceSection["kind"]): readonly Member[] {
  const members = membersThatChange(kind, "hot", "live", "restart");
  return ["image", ...members.filter((member) => member !== "replicas" && member !== "update")];
}

/** Whether the member can become what is wanted while the instance is up. */
function isHotNow(member: Member, current: ObservedInstance, { section }: DesiredInstance): boolean {
  if (member === "cpus" || member === "memoryBytes" || member === "pids") {
    if (current.elastic === undefined) return true;
    const [wanted, bounds] = [section[member], current.elastic[member]];
    return wanted !== undefined && bounds !== undefined && wanted >= bounds.min && wanted <= bounds.max;
  }
  // Another name for the same bytes: other bytes are another instance.
  if (member === "image") return true;
  const change = changeOf(section.kind, member);
  // Of a machine that nobody remembers, the disks and nics it has are not known.
  if (change === "live") return current.plugs === true && current.section !== undefined;
  return change === "hot";
}

/** A disk keeps what it began as, and does not shrink: what asks for more than that is refused, and loses nothing. */
export function refuseDisks(slots: readonly Slot[], draft: Draft): void {
  for (const { current, desired } of slots) {
    const before = new Map((current?.section?.disks ?? []).map((disk) => [disk.name, disk]));
    for (const disk of desired?.section.disks ?? []) {
      const was = before.get(disk.name);
      const why = was === undefined ? undefined : refusal(was, disk);
      if (why === undefined) continue;
      draft.refuse(`vm ${desired?.name}`, `disk ${disk.name} ${why[0]}`, why[1]);
      return;
    }
  }
}

function refusal(was: DiskSection, is: DiskSection): readonly [string, string] | undefined {
  if (was.from.kind !== is.from.kind || (was.from.kind === "image" && !same(was.from, is.from))) {
    // Another image for the first disk is another machine, which has disks of its own.
    return is.name === "root" ? undefined : ["cannot become something else", "give the new one another name"];
  }
  if (was.sizeBytes === undefined || is.sizeBytes === undefined || is.sizeBytes >= was.sizeBytes) return undefined;
  const sizes = `${formatSize(was.sizeBytes)} to ${formatSize(is.sizeBytes)}`;
  return [`cannot shrink from ${sizes}`, "keep the larger size, or move the data to a new disk"];
}
