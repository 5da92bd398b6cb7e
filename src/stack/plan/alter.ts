import { changeOf, membersThatChange } from "../change.ts";
import type { DiskSection, InstanceSection } from "../model.ts";
import type { Digest } from "../../base/id.ts";
import { formatSize } from "../../base/unit.ts";
import { describeChange, diffInstance, same } from "./diff.ts";
import type { Draft } from "./draft.ts";
import { isUp, type Slot } from "./slot.ts";
import type { DesiredInstance, ObservedInstance } from "./step.ts";
import { filesOf } from "./usage.ts";

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
  const renewed = renewedMembers(current, desired);
  const fields = alterable[section.kind].filter(
    (member) => was === undefined || !same(was[member], section[member]) || renewed.has(member),
  );
  if (fields.length === 0) return undefined;
  const { secrets, files } = current;
  const diskImages = mediaOf(section, current.diskImages);
  const changes = was === undefined ? [] : diffInstance({ section: was, secrets, files, diskImages }, desired);
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

/** Members of a machine that name what they named before, where that has other content now. */
function renewedMembers(current: ObservedInstance, desired: DesiredInstance): ReadonlySet<Member> {
  const { section } = desired;
  const members = new Set<Member>();
  if (section.kind !== "vm") return members;
  const files = renewed(current.files, desired.files);
  const toldPaths = filesOf({ ...section, sshKeys: [] });
  if (renewed(current.secrets, desired.secrets).length > 0 || files.some((path) => toldPaths.has(path))) {
    members.add("cloudInit");
  }
  if (section.sshKeys?.some((key) => "path" in key && files.includes(key.path)) === true) members.add("sshKeys");
  if (renewed(mediaOf(section, current.diskImages), desired.diskImages).length > 0) members.add("disks");
  return members;
}

/** Names that were pinned to something else. */
function renewed(
  before: Readonly<Record<string, string>> = {},
  after: Readonly<Record<string, string>> = {},
): readonly string[] {
  return Object.keys(after).filter((name) => Object.hasOwn(before, name) && before[name] !== after[name]);
}

/** Of the pinned disk images, those in drives. What a disk began as is its own since. */
function mediaOf(
  { disks = [] }: InstanceSection,
  pinned: ObservedInstance["diskImages"],
): Readonly<Record<string, Digest>> {
  const names = new Set(disks.flatMap(({ from }) => (from.kind === "iso" ? [from.image] : [])));
  return Object.fromEntries(Object.entries(pinned ?? {}).filter(([name]) => names.has(name)));
}

/** Whether a drive that stays gets another medium. Engines know drives by name, and look into them when they start. */
function swapsMedium(current: ObservedInstance, { section, diskImages = {} }: DesiredInstance): boolean {
  const before = new Map((current.section?.disks ?? []).map((disk) => [disk.name, disk.from]));
  const other = renewed(mediaOf(section, current.diskImages), diskImages);
  return (section.disks ?? []).some(({ name, from }) => {
    const was = before.get(name);
    return from.kind === "iso" && was?.kind === "iso" && (was.image !== from.image || other.includes(from.image));
  });
}

/** Whether the member can become what is wanted while the instance is up. */
function isHotNow(member: Member, current: ObservedInstance, desired: DesiredInstance): boolean {
  const { section } = desired;
  if (member === "cpus" || member === "memoryBytes" || member === "pids") {
    if (current.elastic === undefined) return true;
    const [wanted, bounds] = [section[member], current.elastic[member]];
    return wanted !== undefined && bounds !== undefined && wanted >= bounds.min && wanted <= bounds.max;
  }
  // Another name for the same bytes: other bytes are another instance.
  if (member === "image") return true;
  const change = changeOf(section.kind, member);
  // Of a machine that nobody remembers, the disks and nics it has are not known.
  if (change === "live") {
    const isSwap = member === "disks" && swapsMedium(current, desired);
    return current.plugs === true && current.section !== undefined && !isSwap;
  }
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
