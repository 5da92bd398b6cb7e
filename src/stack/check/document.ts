import { closest } from "../../base/closest.ts";
import { namePattern } from "../../base/id.ts";
import { imageFields, instanceFields, networkFields, secretFields, topFields, volumeFields } from "../field.ts";
import { foreignToMachines, machineFields, microvmFields } from "../guest-field.ts";
import type { ParsedDocument } from "../parse/place.ts";
import { machineShapes, microvmShapes, type MachineInput, type MicrovmInput } from "./guest-shape.ts";
import type { Report } from "./problem.ts";
import { describeValue, isTable, readSection } from "./section.ts";
import { imageShapes, instanceShapes, networkShapes, secretShapes, topShapes, volumeShapes } from "./shape.ts";
import type { ImageInput, InstanceInput, NetworkInput, SecretInput, VolumeInput } from "./shape.ts";

/** The file's sections as far as they could be read, by name, in the order of the file. */
export interface Sections {
  readonly stack?: string;
  readonly network: ReadonlyMap<string, NetworkInput>;
  readonly volume: ReadonlyMap<string, VolumeInput>;
  readonly secret: ReadonlyMap<string, SecretInput>;
  readonly image: ReadonlyMap<string, ImageInput>;
  readonly container: ReadonlyMap<string, InstanceInput>;
  readonly microvm: ReadonlyMap<string, MicrovmInput>;
  readonly vm: ReadonlyMap<string, MachineInput>;
}

export type Noun = Exclude<keyof Sections, "stack">;
const nouns = ["network", "volume", "secret", "image", "container", "microvm", "vm"] as const satisfies readonly Noun[];

/** What STACK.md promises and this release does not do yet. */
const laterNouns: ReadonlyMap<string, string> = new Map([["system", "[system.x] arrives in a later release"]]);

/** Words of other tools' files → ours. */
const foreignNouns: ReadonlyMap<string, Noun> = new Map([
  ["service", "container"],
  ["services", "container"],
  ["instance", "container"],
]);

const ownName = new Map([["localhost", "inside every instance it means the instance itself"]]);

/** Names that mean something already where the section's name is used. */
const reserved: Readonly<Partial<Record<Noun, ReadonlyMap<string, string>>>> = {
  container: ownName,
  microvm: ownName,
  vm: ownName,
  image: new Map([["scratch", "it means the empty image"]]),
  network: new Map([
    ["host", "other tools use it for the host's own network, which Croft does not lend"],
    ["none", "an instance without networks is written networks = []"],
  ]),
};

/** Reads every section of a document, and reports what is wrong with each by itself. */
export function readDocument(report: Report, document: ParsedDocument): Sections {
  const root = document.value;
  if (!isTable(root)) {
    report.error(
      [],
      `a stack file must be a table, not ${describeValue(root)}`,
      'for example: { "container": { "web": { "image": "nginx:1.27" } } }',
    );
    const none = new Map<string, never>();
    return { network: none, volume: none, secret: none, image: none, container: none, microvm: none, vm: none };
  }
  const top: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(root)) {
    if (Object.hasOwn(topShapes, key)) top[key] = value;
    else if (!isNoun(key)) refuseTop(report, key, value);
  }
  const { stack } = readSection(report, [], top, topShapes, topFields) ?? {};
  if (stack !== undefined) checkName(report, ["stack"], stack, "a stack's name", "value");
  const of = (noun: Noun): [string, unknown][] => namedSections(report, noun, root[noun]);
  return {
    ...(stack === undefined ? {} : { stack }),
    network: readAll(
      of("network"),
      (path, value) => readSection(report, path, value, networkShapes, networkFields),
      "network",
    ),
    volume: readAll(
      of("volume"),
      (path, value) => readSection(report, path, value, volumeShapes, volumeFields),
      "volume",
    ),
    secret: readAll(of("secret"), (path, value) => readSecret(report, path, value), "secret"),
    image: readAll(of("image"), (path, value) => readSection(report, path, value, imageShapes, imageFields), "image"),
    container: readAll(
      of("container"),
      (path, value) => readSection(report, path, value, instanceShapes, instanceFields),
      "container",
    ),
    microvm: readAll(
      of("microvm"),
      (path, value) => readSection(report, path, value, microvmShapes, microvmFields),
      "microvm",
    ),
    vm: readAll(
      of("vm"),
      (path, value) => readSection(report, path, value, machineShapes, machineFields, foreignToMachines),
      "vm",
    ),
  };
}

function readAll<Input>(
  entries: readonly [string, unknown][],
  read: (path: [Noun, string], value: unknown) => Input | undefined,
  noun: Noun,
): Map<string, Input> {
  const sections = new Map<string, Input>();
  for (const [name, value] of entries) {
    const section = read([noun, name], value);
    if (section !== undefined) sections.set(name, section);
  }
  return sections;
}

/** Counts what is written, not what could be read: a source that is wrong is still the one that was meant. */
function readSecret(report: Report, path: [Noun, string], value: unknown): SecretInput | undefined {
  const secret = readSection(report, path, value, secretShapes, secretFields);
  if (secret === undefined || !isTable(value)) return undefined;
  const sources = Object.keys(secretFields).filter((source) => Object.hasOwn(value, source));
  if (sources.length === 0) {
    report.error(path, `the secret "${path[1]}" has no source`, "add generate = { length = 32 }, file or env", "key");
  } else if (sources.length > 1) {
    report.error(path, `a secret has one source, not ${sources.join(" and ")}`, "keep one of them", "key");
  }
  return secret;
}

/** The `[noun.name]` tables of one noun; those with impossible names are reported and still read. */
function namedSections(report: Report, noun: Noun, value: unknown): [string, unknown][] {
  if (value === undefined) return [];
  if (!isTable(value)) {
    report.error(
      [noun],
      `${noun} must be tables with a name, not ${describeValue(value)}`,
      `write each as [${noun}.name]`,
    );
    return [];
  }
  for (const name of Object.keys(value)) {
    const meaning = reserved[noun]?.get(name);
    if (meaning === undefined)
      checkName(report, [noun, name], name, `the name of ${noun === "image" ? "an" : "a"} ${noun}`, "key");
    else report.error([noun, name], `a ${noun} cannot be called "${name}": ${meaning}`, "choose another name", "key");
  }
  return Object.entries(value);
}

function checkName(report: Report, path: readonly string[], name: string, what: string, part: "key" | "value"): void {
  if (namePattern.test(name)) return;
  const near = asName(name);
  const rule = "lower-case letters, digits and -, at most 40, with no - at either end";
  report.error(
    path,
    `"${name}" cannot be ${what}`,
    near === undefined ? `use ${rule}` : `use ${rule}: "${near}"`,
    part,
  );
}

/** The name nearest to `text` that is one, such as `my-shop` for `My Shop!`; undefined when nothing of it can be kept. */
export function asName(text: string): string | undefined {
  const name = text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 41)
    .replace(/^-+/, "")
    .slice(0, 40)
    .replace(/-+$/, "");
  return namePattern.test(name) ? name : undefined;
}

function refuseTop(report: Report, key: string, value: unknown): void {
  const later = laterNouns.get(key);
  if (later !== undefined) {
    const names = isTable(value) ? Object.keys(value) : [];
    for (const name of names) {
      report.error([key, name], later, `use [container.${name}] today`, "key");
    }
    if (names.length === 0) report.error([key], later, "use [container.x] today", "key");
    return;
  }
  const meant = foreignNouns.get(key) ?? closest(key, [...nouns, ...Object.keys(topShapes)]);
  const known = [...nouns.map((noun) => `[${noun}.x]`), "stack"].join(", ");
  const isSection = meant !== undefined && isNoun(meant);
  report.error(
    [key],
    isTable(value) ? `there are no [${key}.x] sections` : `there is no field "${key}" at the top of a stack file`,
    meant === undefined ? `there are: ${known}` : `did you mean ${isSection ? `[${meant}.x]` : `"${meant}"`}?`,
    "key",
  );
}

function isNoun(word: string): word is Noun {
  return (nouns as readonly string[]).includes(word);
}
