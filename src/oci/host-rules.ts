import { existsSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { readText } from "./config/bundle.ts";
import {
  findingsOf,
  flag,
  isJson,
  type Json,
  list,
  map,
  oneOf,
  own,
  record,
  type Shape,
  text,
} from "./config/shape.ts";
import { builtInConfig, type HostConfig, hostConfigFiles, type Rule, type Target, targets } from "./route.ts";

const textOrTexts: Shape = (value, at, say) => (Array.isArray(value) ? list(text, 1) : text)(value, at, say);

const rulesShape = record(
  {},
  {
    default: oneOf(...targets),
    rule: list(
      record(
        { engine: oneOf(...targets) },
        {
          annotation: map(textOrTexts),
          label: map(textOrTexts),
          image: textOrTexts,
          name: textOrTexts,
          "user-namespace": flag,
        },
      ),
    ),
    crun: text,
    runc: text,
    microvm: map(() => {}),
  },
);

export async function readHostConfig(said: string | undefined): Promise<HostConfig> {
  const file = said ?? hostConfigFiles.find((place) => existsSync(place));
  if (file === undefined) return builtInConfig;
  const value = await parse(file);
  const findings = findingsOf(rulesShape, value);
  const unknown = isJson(value)
    ? unknownNames(value, ["default", "rule", "crun", "runc", "microvm"], "").concat(
        ...(Array.isArray(value["rule"]) ? value["rule"] : []).map((rule, index) =>
          isJson(rule)
            ? unknownNames(
                rule,
                ["engine", "annotation", "label", "image", "name", "user-namespace"],
                `rule[${index}].`,
              )
            : [],
        ),
      )
    : [];
  // A rule that is not understood might be the one that keeps a hostile image in a microVM: nothing is guessed.
  const wrong = [...findings, ...unknown];
  if (wrong.length > 0) throw new Fault("invalid", `${file}: ${wrong.join("; ")}`);
  const crun = own(value, "crun");
  const runc = own(value, "runc");
  const microvm = own(value, "microvm");
  return {
    rules: {
      default: (own(value, "default") ?? "container") as Target,
      rules: (Array.isArray(own(value, "rule")) ? (own(value, "rule") as Json[]) : []).map(ruleOf),
      source: file,
    },
    programs: {
      ...(typeof crun === "string" ? { crun } : {}),
      ...(typeof runc === "string" ? { runc } : {}),
    },
    microvm: isJson(microvm) ? microvm : {},
  };
}

async function parse(file: string): Promise<unknown> {
  const text = readText(file);
  try {
    if (!file.endsWith(".toml")) return JSON.parse(text);
    // Loaded only where a file in TOML is there: it is on the way of every call.
    const { parse } = await import("smol-toml");
    return parse(text);
  } catch (error) {
    throw new Fault("invalid", `${file}: ${(error as Error).message}`, { cause: error });
  }
}

function unknownNames(value: Json, known: readonly string[], prefix: string): string[] {
  return Object.keys(value)
    .filter((name) => !known.includes(name))
    .map((name) => `${prefix}${name}: is not known; there is ${known.join(", ")}`);
}

function ruleOf(rule: Json): Rule {
  const userNamespace = own(rule, "user-namespace");
  return {
    engine: own(rule, "engine") as Target,
    annotation: patternsByName(own(rule, "annotation")),
    label: patternsByName(own(rule, "label")),
    image: patterns(own(rule, "image")),
    name: patterns(own(rule, "name")),
    ...(typeof userNamespace === "boolean" ? { userNamespace } : {}),
  };
}

function patternsByName(value: unknown): Readonly<Record<string, readonly string[]>> {
  if (!isJson(value)) return {};
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, patterns(entry)]));
}

function patterns(value: unknown): readonly string[] {
  if (value === undefined || value === null) return [];
  return Array.isArray(value) ? (value as string[]) : [value as string];
}
