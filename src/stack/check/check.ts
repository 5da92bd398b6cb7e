import { posix } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { StackSpec } from "../model.ts";
import { parseJson } from "../parse/json.ts";
import { parseToml } from "../parse/toml.ts";
import { checkAcross } from "./cross.ts";
import { asName, readDocument } from "./document.ts";
import type { Sections } from "./document.ts";
import { parseEnvFile } from "./env-file.ts";
import { machinesOf, programsOf } from "./instance.ts";
import { lower } from "./lower.ts";
import type { EnvFiles } from "./lower.ts";
import { Report } from "./problem.ts";
import type { Problem } from "./problem.ts";

/** A stack file as somebody wrote it. */
export interface StackSource {
  /** As it should be shown in messages: `croft.toml`. */
  readonly path: string;
  readonly text: string;
  /** The file's folder, absolute: the stack is named after it, and binds such as `./data` begin there. */
  readonly folder: string;
  readonly format: "toml" | "json";
  /**
   * Files beside it by normalised path, as `needs.files` of an earlier check named them; only env files are read.
   * Absent: not gathered yet, so a missing one is no problem, and the spec lacks what env files would say.
   */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}

export interface Checked {
  /** Absent when there is an error among the problems. */
  readonly spec?: StackSpec;
  /** In the order of the text. */
  readonly problems: readonly Problem[];
  /** What whoever runs `croft up` must send along: paths beside the file without a leading `./`, and variables. */
  readonly needs: { readonly files: readonly string[]; readonly env: readonly string[] };
}

/**
 * Reads and checks a stack file. All problems at once, errors and warnings, each with its line and column. Throws
 * `invalid` only when `folder` is not absolute.
 */
export function checkStack(source: StackSource): Checked {
  if (!posix.isAbsolute(source.folder)) {
    throw new Fault("invalid", `check ${source.path}: the folder "${source.folder}" is not an absolute path`, {
      hint: "send the absolute path of the folder the file is in",
    });
  }
  const { document, problem } = source.format === "toml" ? parseToml(source.text) : parseJson(source.text);
  if (problem !== undefined) {
    const report = new Report(source.path, source.text, { value: problem.span, members: new Map() });
    report.errorAt(problem.span, problem.message, problem.hint);
    return { problems: report.finish(), needs: { files: [], env: [] } };
  }
  const report = new Report(source.path, source.text, document.place);
  const sections = readDocument(report, document);
  checkAcross(report, sections);
  const envFiles = readEnvFiles(report, sections, source.files);
  const stack = sections.stack ?? asName(posix.basename(source.folder));
  if (stack === undefined) {
    report.error(
      [],
      `the stack cannot be named after its folder "${source.folder}"`,
      'name it at the top of the file: stack = "shop"',
    );
  }
  const needs = gatherNeeds(sections);
  if (report.hasErrors || stack === undefined) return { problems: report.finish(), needs };
  return { spec: lower(stack, sections, source.folder, envFiles), problems: report.finish(), needs };
}

function gatherNeeds(sections: Sections): Checked["needs"] {
  const files = new Set<string>();
  const env = new Set<string>();
  for (const { generate: _, file, env: variable } of sections.secret.values()) {
    if (file?.source === "file") files.add(file.path);
    if (variable?.source === "env") env.add(variable.variable);
  }
  for (const image of sections.image.values()) for (const path of Object.values(image.files ?? {})) files.add(path);
  for (const { input } of programsOf(sections)) {
    for (const path of input["env-file"] ?? []) files.add(path);
    for (const { path } of Object.values(input.files ?? {})) if (path !== undefined) files.add(path);
  }
  for (const { input } of machinesOf(sections)) {
    for (const key of input["ssh-keys"] ?? []) if ("path" in key) files.add(key.path);
    for (const text of Object.values(input["cloud-init"] ?? {})) if ("path" in text) files.add(text.path);
  }
  return { files: [...files].toSorted(), env: [...env].toSorted() };
}

function readEnvFiles(report: Report, sections: Sections, files: StackSource["files"]): EnvFiles {
  const all = new Map<string, ReadonlyMap<string, string>>();
  if (files === undefined) return all;
  for (const { name, path: section, input } of programsOf(sections)) {
    const values = new Map<string, string>();
    for (const path of input["env-file"] ?? []) {
      const at = [...section, "env-file"];
      const bytes = files.get(path);
      if (bytes === undefined) {
        report.error(at, `there is no file "${path}" beside the stack file`, "make it, or correct the path");
        continue;
      }
      const file = parseEnvFile(bytes);
      for (const { line, message } of file.wrong)
        report.error(at, `${path}:${line}: ${message}`, "write lines such as LOG_LEVEL=debug");
      for (const [variable, value] of file.values) values.set(variable, value);
    }
    all.set(name, values);
  }
  return all;
}
