import type { Digest } from "../../base/id.ts";
import { formatSize } from "../../base/unit.ts";
import { fieldsByKind } from "../change.ts";
import type {
  DiskSection,
  EnvValue,
  Generation,
  HealthSection,
  InstanceKind,
  InstanceSection,
  MountSection,
  PublishSection,
} from "../model.ts";
import { diskImagesOf, filesOf, secretsOf } from "./usage.ts";

/** One thing that differs, in the words of the language. Never the value of a secret: those are not in a generation. */
export interface Change {
  /** `memory`, `env POSTGRES_DB`, `volume db at /data`, `replicas`. */
  readonly field: string;
  /** Absent: it was not there, or it is not known what was. */
  readonly from?: string;
  /** Absent: it is no longer there. */
  readonly to?: string;
}

/** What changed in one section of the file. `added` and `removed` ones carry no changes. */
export interface SectionDiff {
  /** As in the file: `container.web`, `volume.db`. */
  readonly subject: string;
  readonly kind: "added" | "removed" | "changed";
  readonly changes: readonly Change[];
}

/** What an instance is made of: its section, and what the generation pinned for it. */
export interface Made {
  readonly section: InstanceSection;
  readonly image?: Digest | undefined;
  readonly secrets?: Readonly<Record<string, string>> | undefined;
  readonly files?: Readonly<Record<string, Digest>> | undefined;
  readonly diskImages?: Readonly<Record<string, Digest>> | undefined;
}

/** What differs from `older` to `newer`, section by section, in the order of the file. Empty when nothing does. */
export function diffGenerations(older: Generation, newer: Generation): readonly SectionDiff[] {
  return [
    ...sections("network", older.spec.networks, newer.spec.networks, diffPlain),
    ...sections("volume", older.spec.volumes, newer.spec.volumes, diffPlain),
    ...sections("secret", older.spec.secrets, newer.spec.secrets, diffPlain),
    ...sections("image", older.spec.images, newer.spec.images, diffPlain),
    ...instanceSections(older, newer),
  ];
}

/** `memory 256 MiB → 512 MiB`, `env DEBUG added`: one change for people. */
export function describeChange(change: Change): string {
  if (change.from !== undefined && change.to !== undefined) return `${change.field} ${change.from} → ${change.to}`;
  if (change.to !== undefined) return `${change.field} added (${change.to})`;
  if (change.from !== undefined) return `${change.field} removed (${change.from})`;
  return `${change.field} changed`;
}

/** What differs between two makings of an instance. What is unknown on one side is taken as equal. */
export function diffInstance(older: Made, newer: Made): readonly Change[] {
  const before = older.section;
  const after = newer.section;
  return [
    ...(before.kind === after.kind ? [] : [{ field: "kind", from: before.kind, to: after.kind }]),
    ...diffImage(older, newer),
    ...diffDisks(before.disks, after.disks),
    ...diffEnv(before.env, after.env),
    ...diffMounts(before.mounts, after.mounts),
    ...diffPublish(before.publish, after.publish),
    ...diffRecord("label", before.labels, after.labels, (value) => value),
    ...plainMembers[after.kind].flatMap(({ field, member }) => diffValue(field, member, before[member], after[member])),
    ...diffPins("secret", older.secrets, newer.secrets),
    ...diffPins("file", older.files, newer.files),
    ...diffPins("disk image", older.diskImages, newer.diskImages),
  ];
}

type NamedMember = { readonly field: string; readonly member: keyof InstanceSection };

/** Members compared whole, with the name the language gives them. */
const plainMembers: Readonly<Record<InstanceKind, readonly NamedMember[]>> = {
  container: plainMembersOf("container"),
  microvm: plainMembersOf("microvm"),
  vm: plainMembersOf("vm"),
};

function plainMembersOf(kind: InstanceKind): readonly NamedMember[] {
  const special = new Set<keyof InstanceSection>(["image", "disks", "env", "mounts", "publish", "labels"]);
  const named = new Map<keyof InstanceSection, string>();
  for (const [field, { member }] of Object.entries(fieldsByKind[kind])) {
    // Where several fields end in one member, it is told by its own name.
    if (!special.has(member)) named.set(member, named.has(member) ? fieldName(member) : field);
  }
  named.set("terminal", "terminal").set("stdin", "stdin");
  return [...named].map(([member, field]) => ({ field, member }));
}

function sections<Section>(
  noun: string | ((section: Section) => string),
  older: Readonly<Record<string, Section>>,
  newer: Readonly<Record<string, Section>>,
  compare: (before: Section, after: Section) => readonly Change[],
): SectionDiff[] {
  const before = new Map(Object.entries(older));
  const after = new Map(Object.entries(newer));
  const diffs: SectionDiff[] = [];
  const subject = (name: string, section: Section): string =>
    `${typeof noun === "string" ? noun : noun(section)}.${name}`;
  for (const [name, section] of after) {
    const was = before.get(name);
    if (was === undefined) diffs.push({ subject: subject(name, section), kind: "added", changes: [] });
    else {
      const changes = compare(was, section);
      if (changes.length > 0) diffs.push({ subject: subject(name, section), kind: "changed", changes });
    }
  }
  for (const [name, section] of before) {
    if (!after.has(name)) diffs.push({ subject: subject(name, section), kind: "removed", changes: [] });
  }
  return diffs;
}

function instanceSections(older: Generation, newer: Generation): SectionDiff[] {
  return sections(
    ({ kind }) => kind,
    older.spec.instances,
    newer.spec.instances,
    (before, after) => diffInstance(made(older, before), made(newer, after)),
  );
}

function made(generation: Generation, section: InstanceSection): Made {
  return {
    section,
    image: generation.images[section.image],
    secrets: used(generation.secrets, secretsOf(section)),
    files: used(generation.files, filesOf(section)),
    diskImages: used(generation.diskImages ?? {}, diskImagesOf(section)),
  };
}

function used<Pin>(pins: Readonly<Record<string, Pin>>, names: ReadonlySet<string>): Record<string, Pin> {
  return Object.fromEntries(Object.entries(pins).filter(([name]) => names.has(name)));
}

function diffImage(older: Made, newer: Made): Change[] {
  if (older.section.image !== newer.section.image) {
    return [{ field: "image", from: older.section.image, to: newer.section.image }];
  }
  if (older.image === undefined || newer.image === undefined || older.image === newer.image) return [];
  return [{ field: `image ${newer.section.image}`, from: shortDigest(older.image), to: shortDigest(newer.image) }];
}

function diffEnv(before: Readonly<Record<string, EnvValue>>, after: Readonly<Record<string, EnvValue>>): Change[] {
  return diffRecord("env", before, after, (value) =>
    "secret" in value ? `secret ${value.secret}` : JSON.stringify(value.value),
  );
}

function diffMounts(before: readonly MountSection[], after: readonly MountSection[]): Change[] {
  return diffRecord(
    "mount",
    byKey(before, (mount) => mount.destination),
    byKey(after, (mount) => mount.destination),
    describeMount,
  );
}

function diffDisks(before: readonly DiskSection[] = [], after: readonly DiskSection[] = []): Change[] {
  const changes = diffRecord(
    "disk",
    byKey(before, ({ name }) => name),
    byKey(after, ({ name }) => name),
    describeDisk,
  );
  const [from, to] = [orderOf(before), orderOf(after)];
  return changes.length > 0 || from === to ? changes : [{ field: "boot", from, to }];
}

function orderOf(disks: readonly DiskSection[]): string {
  return disks.map(({ name }) => name).join(", ");
}

function describeDisk({ from, sizeBytes }: DiskSection): string {
  const what = from.kind === "blank" ? "blank" : `${from.kind} ${from.image}`;
  return sizeBytes === undefined ? what : `${what} of ${formatSize(sizeBytes)}`;
}

function diffPublish(before: readonly PublishSection[], after: readonly PublishSection[]): Change[] {
  return diffRecord("publish", byKey(before, hostSide), byKey(after, hostSide), (port) => `port ${port.port}`);
}

function hostSide(port: PublishSection): string {
  return `${port.hostAddress}:${port.hostPort}/${port.protocol}`;
}

function byKey<Item>(items: readonly Item[], key: (item: Item) => string): Record<string, Item> {
  return Object.fromEntries(items.map((item) => [key(item), item]));
}

function diffRecord<Value>(
  field: string,
  before: Readonly<Record<string, Value>>,
  after: Readonly<Record<string, Value>>,
  describe: (value: Value) => string,
): Change[] {
  const changes: Change[] = [];
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const was = Object.hasOwn(before, key) ? before[key] : undefined;
    const is = Object.hasOwn(after, key) ? after[key] : undefined;
    if (same(was, is)) continue;
    changes.push({
      field: `${field} ${key}`,
      ...(was === undefined ? {} : { from: describe(was) }),
      ...(is === undefined ? {} : { to: describe(is) }),
    });
  }
  return changes;
}

/** Versions of secrets say nothing to a person, digests little: that they changed is what counts. */
function diffPins(
  field: string,
  before: Readonly<Record<string, string>> | undefined,
  after: Readonly<Record<string, string>> | undefined,
): Change[] {
  if (before === undefined || after === undefined) return [];
  return Object.keys(after)
    .filter((key) => Object.hasOwn(before, key) && before[key] !== after[key])
    .map((key) => ({ field: field === "secret" ? `value of secret ${key}` : `content of ${key}` }));
}

function diffValue(field: string, member: string, before: unknown, after: unknown): Change[] {
  if (same(before, after)) return [];
  // A table is told by what differs in it; a check is one word and stays whole.
  if (isTable(before) && isTable(after)) {
    return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((key) =>
      diffValue(`${field}.${fieldName(key)}`, key, before[key], after[key]),
    );
  }
  return [
    {
      field,
      ...(before === undefined ? {} : { from: describeValue(member, before) }),
      ...(after === undefined ? {} : { to: describeValue(member, after) }),
    },
  ];
}

function diffPlain(before: object, after: object): Change[] {
  const was = new Map<string, unknown>(Object.entries(before));
  const is = new Map<string, unknown>(Object.entries(after));
  return [...new Set([...was.keys(), ...is.keys()])].flatMap((member) =>
    diffValue(member.replace(/Bytes$/, ""), member, was.get(member), is.get(member)),
  );
}

/** A value in the words of the language, as near as one line allows. */
function describeValue(member: string, value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "number") {
    if (member.endsWith("Bytes")) return formatSize(value);
    return member.endsWith("Ms") ? describeDuration(value) : String(value);
  }
  if (Array.isArray(value)) return `[${value.map((item) => describeValue("", item)).join(", ")}]`;
  if (isCheck(value)) return describeCheck(value);
  if (typeof value !== "object" || value === null) return String(value);
  const parts = Object.entries(value).map(([key, part]) => `${fieldName(key)} = ${describeValue(key, part)}`);
  return `{ ${parts.join(", ")} }`;
}

/** A member in the words of the language: `healthyWithinMs` is `healthy-within`. */
function fieldName(member: string): string {
  // Keys of a person's own, such as paths, are as they are.
  if (!/^[a-z]+([A-Z][a-z]+)*$/.test(member)) return member;
  return member.replace(/(Bytes|Ms)$/, "").replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isCheck(value);
}

type HealthCheck = HealthSection["check"];

function isCheck(value: unknown): value is HealthCheck {
  return typeof value === "object" && value !== null && "kind" in value && /^(http|tcp|exec)$/.test(String(value.kind));
}

/** `http :80/healthz`, `exec [pg_isready, -q]`. */
function describeCheck(check: HealthCheck): string {
  if (check.kind === "exec") return `exec ${describeValue("", check.argv)}`;
  return `${check.kind} :${check.port}${check.kind === "http" ? check.path : ""}`;
}

/** `90s`, `2m`, `1500ms`: exact, in the largest unit that is. */
export function describeDuration(durationMs: number): string {
  const units = [
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1000],
  ] as const;
  const unit = durationMs === 0 ? undefined : units.find(([, factor]) => durationMs % factor === 0);
  return unit === undefined ? `${durationMs}ms` : `${durationMs / unit[1]}${unit[0]}`;
}

function describeMount(mount: MountSection): string {
  switch (mount.kind) {
    case "volume":
      return `volume ${mount.volume}${mount.readOnly ? " (read-only)" : ""}`;
    case "bind":
      return `bind ${mount.source}${mount.readOnly ? " (read-only)" : ""}`;
    case "tmpfs":
      return `tmpfs${mount.sizeBytes === undefined ? "" : ` of ${formatSize(mount.sizeBytes)}`}`;
    case "file":
      return `file ${mount.path}${mount.mode === undefined ? "" : ` (mode ${mount.mode.toString(8)})`}`;
    default:
      return `secret ${mount.secret} (mode ${mount.mode.toString(8)})`;
  }
}

/** Equal as JSON: the order of keys says nothing, and an undefined member is an absent one. */
export function same(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (left === null || right === null || typeof left !== "object" || typeof right !== "object") return false;
  if (Array.isArray(left)) {
    return (
      Array.isArray(right) && left.length === right.length && left.every((item, index) => same(item, right[index]))
    );
  }
  if (Array.isArray(right)) return false;
  const others = new Map<string, unknown>(Object.entries(right));
  for (const [key, value] of Object.entries(left)) {
    if (!same(value, others.get(key))) return false;
    others.delete(key);
  }
  for (const value of others.values()) if (value !== undefined) return false;
  return true;
}

function shortDigest(digest: Digest): string {
  return digest.slice(7, 19);
}
