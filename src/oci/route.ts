import { own, isJson, type Json, recordsIn } from "./config/shape.ts";

/**
 * Which engine serves a container. The first rule whose conditions all hold decides, otherwise the default. Rules come
 * from the host, never from the bundle: a bundle only says what it is, by its annotations.
 */

/** What a rule names: `container` is whichever of crun and runc works here. */
export const targets = ["container", "crun", "runc", "microvm"] as const;
export type Target = (typeof targets)[number];

export interface Rule {
  readonly engine: Target;
  /** Each name must be there with a value that matches one of the patterns. */
  readonly annotation: Readonly<Record<string, readonly string[]>>;
  readonly label: Readonly<Record<string, readonly string[]>>;
  readonly image: readonly string[];
  readonly name: readonly string[];
  readonly userNamespace?: boolean;
}

export interface Rules {
  readonly rules: readonly Rule[];
  readonly default: Target;
  /** Where they come from, for explanations. */
  readonly source: string;
}

export interface Decision {
  readonly target: Target;
  readonly why: string;
}

const anyone = { annotation: {}, label: {}, image: [], name: [] } as const;

/** Without a file, a caller may ask for an engine by an annotation. */
export const builtInRules: Rules = {
  rules: targets.map((engine) => ({ ...anyone, engine, annotation: { "croft.engine": [engine] } })),
  default: "container",
  source: "built in",
};

/** The host's configuration: `--rules FILE`, else the first of these that is there, else what is built in. */
export const hostConfigFiles = ["/etc/croft/oci.json", "/etc/croft/oci.toml"];

export interface HostConfig {
  readonly rules: Rules;
  /** Programs to use instead of those in the usual places. */
  readonly programs: { readonly crun?: string; readonly runc?: string };
  /** What is set for microVMs, as it stands in the file. */
  readonly microvm: Json;
}

export const builtInConfig: HostConfig = { rules: builtInRules, programs: {}, microvm: {} };

/** Annotations by which callers say which image and which name a container has. */
const imageAnnotations = [
  "io.kubernetes.cri.image-name",
  "io.kubernetes.cri-o.ImageName",
  "io.kubernetes.cri-o.Image",
  "org.opencontainers.image.ref.name",
  "org.opencontainers.image.base.name",
  "io.containerd.image.name",
];
const nameAnnotations = [
  "io.kubernetes.cri.container-name",
  "io.kubernetes.container.name",
  "io.kubernetes.cri.sandbox-name",
  "io.kubernetes.cri-o.Name",
  "io.kubernetes.cri-o.ContainerName",
  "nerdctl/name",
];

export function decide(rules: Rules, id: string | undefined, config: Json): Decision {
  for (const [index, rule] of rules.rules.entries()) {
    const reasons = matchOf(rule, id, config);
    if (reasons !== undefined) {
      return { target: rule.engine, why: `rule ${index + 1} (${rules.source}): ${reasons.join(", ")}` };
    }
  }
  return { target: rules.default, why: `the default (${rules.source}): no rule matches` };
}

/** What made it match; undefined when it does not. A rule without conditions matches everything. */
function matchOf(rule: Rule, id: string | undefined, config: Json): readonly string[] | undefined {
  const annotations = isJson(config["annotations"]) ? config["annotations"] : {};
  const reasons: string[] = [];
  for (const [name, patterns] of Object.entries(rule.annotation)) {
    const value = own(annotations, name);
    if (typeof value !== "string" || !matchesAny(patterns, value)) return undefined;
    reasons.push(`annotation ${name} = ${value}`);
  }
  if (Object.keys(rule.label).length > 0) {
    const labels = labelsOf(annotations);
    for (const [name, patterns] of Object.entries(rule.label)) {
      const value = own(labels, name);
      if (typeof value !== "string" || !matchesAny(patterns, value)) return undefined;
      reasons.push(`label ${name} = ${value}`);
    }
  }
  for (const [kind, patterns, candidates] of [
    ["image", rule.image, valuesOf(annotations, imageAnnotations)],
    ["name", rule.name, [...valuesOf(annotations, nameAnnotations), ...(id === undefined ? [] : [id])]],
  ] as const) {
    if (patterns.length === 0) continue;
    const hit = candidates.find((value) => matchesAny(patterns, value));
    if (hit === undefined) return undefined;
    reasons.push(`${kind} ${hit}`);
  }
  if (rule.userNamespace !== undefined) {
    const has = recordsIn(own(config, "linux"), "namespaces").some(({ type }) => type === "user");
    if (has !== rule.userNamespace) return undefined;
    reasons.push(has ? "a user namespace" : "no user namespace");
  }
  return reasons.length === 0 ? ["it is for all"] : reasons;
}

/** Labels reach a runtime as annotations, or, from CRI-O, as one annotation with all of them. */
function labelsOf(annotations: Json): Json {
  const packed = own(annotations, "io.kubernetes.cri-o.Labels");
  if (typeof packed !== "string") return annotations;
  try {
    const labels: unknown = JSON.parse(packed);
    return isJson(labels) ? { ...annotations, ...labels } : annotations;
  } catch {
    return annotations;
  }
}

function valuesOf(annotations: Json, names: readonly string[]): readonly string[] {
  return names.flatMap((name) => {
    const value = own(annotations, name);
    return typeof value === "string" ? [value] : [];
  });
}

function matchesAny(patterns: readonly string[], value: string): boolean {
  return patterns.some((pattern) => matches(pattern, value));
}

/** The whole value, with `*` for any characters and `?` for one; linear in time, whatever the pattern. */
export function matches(pattern: string, value: string): boolean {
  let at = 0;
  let index = 0;
  let star = -1;
  let retry = 0;
  while (index < value.length) {
    if (pattern[at] === "*") {
      star = at;
      retry = index;
      at += 1;
    } else if (at < pattern.length && (pattern[at] === "?" || pattern[at] === value[index])) {
      at += 1;
      index += 1;
    } else if (star !== -1) {
      at = star + 1;
      retry += 1;
      index = retry;
    } else return false;
  }
  while (pattern[at] === "*") at += 1;
  return at === pattern.length;
}
