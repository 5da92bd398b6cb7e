import { canonicalJson, instanceId, shortHash } from "../../base/id.ts";
import type { NetworkId, VolumeId } from "../../base/id.ts";
import { recreateMembers } from "../field.ts";
import type { Generation, InstanceSection } from "../model.ts";
import type { Desired, DesiredInstance } from "./step.ts";

/**
 * What a generation means on a host: replicas counted out, ids computed. Pure, and the same for equal generations.
 *
 * `stopped` is what somebody said `croft stop` about: `web` for every replica of a section, `web.2` for one.
 * An image that the generation does not pin (a preview before it is pulled) is hashed by its name instead, so its
 * instances show up as changed unless nothing was known about them before either.
 */
export function expand(generation: Generation, stopped: ReadonlySet<string>): Desired {
  const { spec } = generation;
  const instances: DesiredInstance[] = [];
  for (const [name, section] of Object.entries(spec.instances)) {
    const pinned = pinnedBy(generation, section);
    const hash = specHash(generation, section, pinned);
    for (let ordinal = 1; ordinal <= section.replicas; ordinal += 1) {
      instances.push({
        id: instanceId(spec.stack, name, ordinal, hash),
        name,
        ordinal,
        section,
        ...pinned,
        running: !stopped.has(name) && !stopped.has(`${name}.${ordinal}`),
      });
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

/** What should be there of a stack that should not be there: `croft down`. */
export function expandNothing(stack: string): Desired {
  return { stack, networks: [], volumes: [], instances: [] };
}

export function networkId(stack: string, name: string): NetworkId {
  return `${stack}.${name}` as NetworkId;
}

export function volumeId(stack: string, name: string): VolumeId {
  return `${stack}.${name}` as VolumeId;
}

type Pinned = Pick<DesiredInstance, "image" | "secrets" | "files">;

/** What the section uses of what the generation pins. */
function pinnedBy(generation: Generation, section: InstanceSection): Pinned {
  const secretNames = new Set<string>();
  const paths = new Set<string>();
  for (const value of Object.values(section.env)) if ("secret" in value) secretNames.add(value.secret);
  for (const mount of section.mounts) {
    if (mount.kind === "secret") secretNames.add(mount.secret);
    if (mount.kind === "file") paths.add(mount.path);
  }
  const image = own(generation.images, section.image);
  return {
    ...(image === undefined ? {} : { image }),
    secrets: pick(generation.secrets, secretNames),
    files: pick(generation.files, paths),
  };
}

/**
 * Eight hex digits over all that cannot change in place. The networks' own sections count: an instance keeps the
 * addresses and the route it was attached with, so a network that changes makes other instances. The image's name does
 * not count once its digest is known: `nginx:1.27` and `nginx:1.27.3` may be the same bytes.
 */
function specHash(generation: Generation, section: InstanceSection, pinned: Pinned): string {
  const members = recreateMembers.filter((member) => member !== "image").map((member) => [member, section[member]]);
  return shortHash(
    canonicalJson({
      section: Object.fromEntries(members),
      image: pinned.image ?? section.image,
      secrets: pinned.secrets,
      files: pinned.files,
      networks: section.networks.map((name) => own(generation.spec.networks, name)),
    }),
    8,
  );
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
