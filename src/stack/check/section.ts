import { closest } from "../../base/closest.ts";
import type { z } from "zod";
import type { Field } from "../field.ts";
import type { KeyPath } from "../parse/place.ts";
import type { Report } from "./problem.ts";
import type { Readable } from "./shape.ts";
import { suggest } from "./suggest.ts";

/** One issue, as zod tells it. */
type Issue = z.core.$ZodIssue;

/**
 * Reads one table field by field, so that a wrong field hides neither the other fields' problems nor their values.
 * Undefined when it is not a table at all. `refused`: fields of other sections that somebody may look for in this one.
 */
export function readSection<Shape extends Record<string, z.ZodType>>(
  report: Report,
  path: KeyPath,
  value: unknown,
  shapes: Shape,
  fields: { readonly [Name in keyof Shape]: Field },
  refused: Readonly<Record<string, { readonly why: string; readonly mend: string }>> = {},
): Readable<Shape> | undefined {
  if (!isTable(value)) {
    report.error(
      path,
      `${named(path)} must be a table, not ${describeValue(value)}`,
      `write it as [${path.join(".")}]`,
    );
    return undefined;
  }
  const readable: Record<string, unknown> = {};
  const names = Object.keys(shapes);
  for (const [name, written] of Object.entries(value)) {
    const shape = Object.hasOwn(shapes, name) ? shapes[name] : undefined;
    const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
    const foreign = Object.hasOwn(refused, name) ? refused[name] : undefined;
    if (shape === undefined && foreign !== undefined) {
      report.error([...path, name], `there is no "${name}" here: ${foreign.why}`, foreign.mend, "key");
      continue;
    }
    if (shape === undefined || field === undefined) {
      report.error([...path, name], `there is no field "${name}" here`, suggest(name, names, ""), "key");
      continue;
    }
    const result = shape.safeParse(written);
    if (result.success) readable[name] = result.data;
    else {
      for (const issue of result.error.issues) explain(report, [...path, name], written, issue, shape, field);
      const rest = shape.safeParse(withoutWrong(written, result.error.issues));
      if (rest.success) readable[name] = rest.data;
    }
  }
  for (const [name, field] of Object.entries<Field>(fields)) {
    if (field.default === "required" && !Object.hasOwn(value, name)) {
      report.error(path, `${named(path)} has no ${name}`, `add ${field.example}`, "key");
    }
  }
  return readable as Readable<Shape>;
}

/** A table without the entries that are wrong, so that what its other entries name is still checked. */
function withoutWrong(written: unknown, issues: readonly Issue[]): unknown {
  if (!isTable(written)) return undefined;
  const wrong = new Set(
    issues.flatMap((issue) =>
      issue.code === "unrecognized_keys" && issue.path.length === 0 ? issue.keys : [issue.path[0]],
    ),
  );
  return Object.fromEntries(Object.entries(written).filter(([key]) => !wrong.has(key)));
}

/** Turns one issue of zod into problems in the words of the language. */
function explain(report: Report, path: KeyPath, written: unknown, issue: Issue, shape: z.ZodType, field: Field): void {
  const within = issue.path.filter((step): step is string | number => typeof step !== "symbol");
  const at = [...path, ...within];
  const input = within.reduce<unknown>((value, step) => (isIndexable(value) ? value[step] : undefined), written);
  const example = `for example: ${field.example}`;

  if (issue.code === "invalid_union") {
    const branch = likelyBranch(issue.errors);
    if (branch !== undefined) {
      for (const inner of branch)
        explain(report, path, written, { ...inner, path: [...issue.path, ...inner.path] }, shape, field);
      return;
    }
  }
  if (issue.code === "unrecognized_keys") {
    const known = keysAt(shape, within);
    for (const key of issue.keys) {
      report.error([...at, key], `there is no "${key}" in ${named(at)}`, suggest(key, known, example), "key");
    }
    return;
  }
  if (issue.code === "invalid_key") {
    const { message, hint } = split(issue.issues[0]?.message ?? issue.message);
    report.error(at, message, hint ?? example, "key");
    return;
  }
  if (issue.code === "invalid_value" && typeof input === "string") {
    const options = issue.values.map(String);
    const near = closest(input, options);
    const choices = options.map((option) => `"${option}"`).join(", ");
    report.error(
      at,
      `${named(at)} cannot be "${input}"`,
      near === undefined ? `write one of ${choices}` : `did you mean "${near}"? It can be ${choices}`,
    );
    return;
  }
  // Only messages of ours have a second line.
  const { message, hint } = split(issue.message);
  if (hint !== undefined) {
    report.error(
      at,
      /^[a-z]+ /.test(message) && startsAsPredicate(message) ? `${named(at)} ${message}` : message,
      hint,
    );
  } else if (input === undefined && within.length > 0) {
    report.error(at.slice(0, -1), `${named(at.slice(0, -1))} has no ${String(within.at(-1))}`, example);
  } else {
    const what = within.length === 0 ? article(field.type) : expectation(issue);
    report.error(at, `${named(at)} must be ${what}, not ${describeValue(input)}`, example);
  }
}

/** Messages such as `is too little` go on from the field's name; the others are sentences of their own. */
function startsAsPredicate(message: string): boolean {
  return /^(is|must|cannot) /.test(message);
}

/** The alternative that was meant: the only one whose complaints are not about being of another kind altogether. */
function likelyBranch(branches: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  const close = branches.filter(
    (issues) =>
      !issues.some(
        (issue) =>
          issue.path.length === 0 && ["invalid_type", "invalid_union", "invalid_value"].includes(issue.code ?? ""),
      ),
  );
  return close.length === 1 ? close[0] : undefined;
}

/** The keys a table may have at `path` within a schema, whichever of its alternatives is meant. */
function keysAt(schema: unknown, path: KeyPath): string[] {
  const def = (schema as { def?: Record<string, unknown> }).def ?? {};
  const [step, ...rest] = path;
  switch (def["type"]) {
    case "union":
      return (def["options"] as unknown[]).flatMap((option) => keysAt(option, path));
    case "optional":
      return keysAt(def["innerType"], path);
    case "pipe":
      return keysAt(def["in"], path);
    case "array":
      return step === undefined ? [] : keysAt(def["element"], rest);
    case "record":
      return step === undefined ? [] : keysAt(def["valueType"], rest);
    case "object": {
      const shape = def["shape"] as Record<string, unknown>;
      return step === undefined ? Object.keys(shape) : keysAt(shape[String(step)], rest);
    }
    default:
      return [];
  }
}

function split(message: string): { message: string; hint: string | undefined } {
  const [first = "", ...rest] = message.split("\n");
  return { message: first, hint: rest.length === 0 ? undefined : rest.join("\n") };
}

/** What zod wanted somewhere within a field's value. */
function expectation(issue: Issue): string {
  if (issue.code === "invalid_union" && issue.message !== "Invalid input") return issue.message;
  if (issue.code === "invalid_value") return `one of ${issue.values.map((value) => `"${String(value)}"`).join(", ")}`;
  if (issue.code !== "invalid_type") return "something else";
  const words: Readonly<Record<string, string>> = {
    array: "a list",
    object: "a table",
    record: "a table",
    int: "a whole number",
  };
  return words[issue.expected] ?? article(issue.expected);
}

/** The last named step of a path, for messages: `memory`, `publish entry 2`. */
function named(path: KeyPath): string {
  const last = path.at(-1);
  if (typeof last === "number") return `${named(path.slice(0, -1))} entry ${last + 1}`;
  return last ?? "the file";
}

function article(type: string): string {
  return /^(`|one |a |an |list|table)/.test(type) && !/^(list|table)/.test(type)
    ? type
    : `${/^[aeiou]/i.test(type) ? "an" : "a"} ${type}`;
}

/** A value as it may be shown in a message: its kind, and short ones themselves. */
export function describeValue(value: unknown): string {
  if (typeof value === "string") return value.length > 60 ? "this string" : `the string ${JSON.stringify(value)}`;
  if (typeof value === "number" || typeof value === "bigint") return `the number ${value}`;
  if (typeof value === "boolean") return String(value);
  if (value === null) return "null";
  if (value === undefined) return "nothing";
  if (value instanceof Date) return "a date";
  return Array.isArray(value) ? "a list" : "a table";
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function isIndexable(value: unknown): value is Record<string | number, unknown> {
  return typeof value === "object" && value !== null;
}
