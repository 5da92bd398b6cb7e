import { canonicalJson, instanceId, shortHash } from "../../base/id.ts";
import type { NetworkId, VolumeId } from "../../base/id.ts";
import { membersThatChange } from "../change.ts";
import type { Generation, InstanceKind, InstanceSection } from "../model.ts";
import { diskImagesOf, filesOf, secretsOf } from "./usage.ts";
import type { Desired, DesiredInstance } from "./step.ts";

/**
 * What a generation means on a host: replicas counted out, ids computed. Pure, and the same for equal generations.
 *
 * `stopped` is what somebody said `croft stop` about: `web` for every replica of a section, `web.2` for one; `suspended`
 * the same for `croft suspend`.
 * An image that the generation does not pin (a preview before it is pulled) is hashed by its name instead, so its
 * instances show up as changed unless nothing was known about them before either.
 */
export function expand(
  generation: Generation,
  stopped: ReadonlySet<string>,
  suspended: ReadonlySet<string> = new Set(),
): Desired {
  const { spec } = generation;
  const made = makings.get(generation) ?? makeAll(generation);
  makings.set(generation, made);
  const instances: DesiredInstance[] = [];
  for (const { name, section, pinned, hash } of made) {
    for (let ordinal = 1; ordinal <= section.replicas; ordinal += 1) {
      const isIn = (names: ReadonlySet<string>): boolean => names.has(name) || names.has(`${name}.${ordinal}`);
      const rest = isIn(stopped)
        ? { running: false }
        : isIn(suspended)
          ? { running: false, suspended: true }
          : { running: true };
      instances.push({ id: instanceId(spec.stack, name, ordinal, hash), name, ordinal, section, ...pinned, ...rest });
    }
  }
  return {
    stack: spec.stack,
    networks: Object.entries(spec.networks).map(([name, section]) => ({
      id: networkId(spec.stack, name),
      name,
      section,
    })),
    volumes: Object.entries(spec.volumes).map(([name, section]) => ({ id: volumeId(spec.stack, name), name, section })),
    instances,
  };
}

export function networkId(stack: string, name: string): NetworkId {
  return `${stack}.${name}` as NetworkId;
}

export function volumeId(stack: string, name: string): VolumeId {
  return `${stack}.${name}` as VolumeId;
}

type Pinned = Pick<DesiredInstance, "image" | "secrets" | "files" | "diskImages">;

/** How the instances of one section are made. */
interface Making {
  readonly name: string;
  readonly section: InstanceSection;
  readonly pinned: Pinned;
  readonly hash: string;
}

/** Hashing is most of the work, and a generation never changes: the loop expands the same one at every pass. */
const makings = new WeakMap<Generation, readonly Making[]>();

function makeAll(generation: Generation): readonly Making[] {
  const networks = new Map(
    Object.entries(generation.spec.networks).map(([name, section]) => [name, canonicalJson(section)]),
  );
  return Object.entries(generation.spec.instances).map(([name, section]) => {
    const pinned = pinnedBy(generation, section);
    return { name, section, pinned, hash: specHash(section, pinned, networks) };
  });
}

/** What the section uses of what the generation pins. */
function pinnedBy(generation: Generation, section: InstanceSection): Pinned {
  const image = section.kind === "vm" ? undefined : own(generation.images, section.image);
  return {
    ...(image === undefined ? {} : { image }),
    secrets: pick(generation.secrets, secretsOf(section)),
    files: pick(generation.files, filesOf(section)),
    ...(section.disks === undefined ? {} : { diskImages: pick(generation.diskImages ?? {}, diskImagesOf(section)) }),
  };
}

/**
 * Eight hex digits over all that cannot change in place. The networks' own sections count: an instance keeps the
 * addresses and the route it was attached with, so a network that changes makes other instances. The image's name does
 * not count once its digest is known: `nginx:1.27` and `nginx:1.27.3` may be the same bytes. Members that are absent
 * leave no trace, so that a field that a later release adds does not make other instances of those that lack it.
 *
 * Of a machine nothing counts but what its first disk begins as: its disks hold what nobody could make again, so all
 * else is changed on the machine that is there.
 */
function specHash(section: InstanceSection, pinned: Pinned, networks: ReadonlyMap<string, string>): string {
  if (section.kind === "vm") return shortHash(`kind=vm\nroot ${rootOf(section, pinned)}`, 8);
  let text = "";
  for (const member of hashedMembers[section.kind]) {
    const value = section[member];
    if (value !== undefined) text += `${member}=${canonicalJson(value)}\n`;
  }
  for (const name of section.networks) text += `network ${networks.get(name) ?? ""}\n`;
  text += `${pinned.image ?? section.image}\n${canonicalJson(pinned.secrets)}\n${canonicalJson(pinned.files)}`;
  return shortHash(text, 8);
}

function rootOf({ disks = [] }: InstanceSection, { diskImages = {} }: Pinned): string {
  const from = disks.find(({ name }) => name === "root")?.from;
  if (from === undefined) return "none";
  return from.kind === "blank" ? "blank" : (own(diskImages, from.image) ?? from.image);
}

const hashedMembers: Readonly<Record<InstanceKind, readonly (keyof InstanceSection)[]>> = {
  container: hashed("container"),
  microvm: hashed("microvm"),
  vm: [],
};

function hashed(kind: InstanceKind): readonly (keyof InstanceSection)[] {
  return membersThatChange(kind, "recreate")
    .filter((member) => member !== "image")
    .toSorted();
}

function own<Value>(record: Readonly<Record<string, Value>>, key: string): Value | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

function pick<Value>(record: Readonly<Record<string, Value>>, keys: Iterable<string>): Record<string, Value> {
  const picked: Record<string, Value> = {};
  for (const key of [...keys].sort()) {
    const value = own(record, key);
    if (value !== undefined) picked[key] = value;
  }
  return picked;
}
