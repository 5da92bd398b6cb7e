import { existsSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { Fault } from "../base/fault.ts";
import type { CheckStackResponse, StackSource } from "../client/message.ts";
import type { Context } from "./context.ts";

const defaultNames = ["croft.toml", "croft.json"];

/**
 * The stack file that was named: a file, or a folder with one, absent the one in this folder. Throws `not-found` when
 * there is none.
 */
export async function readStackFile(
  named: string | undefined,
  { directory }: Pick<Context, "directory">,
): Promise<StackSource> {
  const path = findStackFile(named, directory);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new Fault("failed", `read ${path}: ${error instanceof Error ? error.message : "it failed"}`, {
      cause: error,
    });
  }
  return {
    path: named === undefined ? basename(path) : named.endsWith(basename(path)) ? named : join(named, basename(path)),
    text,
    folder: dirname(path),
    format: path.endsWith(".json") ? "json" : "toml",
  };
}

function findStackFile(named: string | undefined, directory: string): string {
  const place = resolve(directory, named ?? ".");
  const found = statSync(place, { throwIfNoEntry: false });
  if (found === undefined)
    throw new Fault("not-found", `there is no ${named}`, { hint: "name a stack file or its folder" });
  if (!found.isDirectory()) return place;
  const path = defaultNames.map((name) => join(place, name)).find((candidate) => existsSync(candidate));
  if (path !== undefined) return path;
  throw new Fault("not-found", `there is no ${defaultNames.join(" or ")} in ${place}`, {
    hint: "write one, or name another: croft up FILE",
  });
}

export interface CheckedSource {
  readonly source: StackSource;
  readonly check: CheckStackResponse;
}

/** Has the daemon check a stack file and shows what it says. Throws `invalid` when there is an error in it. */
export async function checkSource(source: StackSource, context: Context): Promise<CheckedSource> {
  const { client, err, json, quiet } = context;
  const check = await client.stacks.check({ source, color: err.color });
  const errors = check.problems.filter(({ severity }) => severity === "error").length;
  if (!json && check.report !== "" && (errors > 0 || !quiet)) await err.write(`${check.report.trimEnd()}\n\n`);
  if (errors === 0) return { source, check };
  const what = errors === 1 ? "an error" : `${errors} errors`;
  throw new Fault("invalid", json ? check.report : `${source.path} has ${what}`, { hint: "nothing was changed" });
}

/** The source with everything it needs: local files sent to the daemon, and the variables it takes. */
export async function completeSource({ source, check }: CheckedSource, context: Context): Promise<StackSource> {
  const files: Record<string, string> = {};
  if (check.files.length > 0) {
    const { tarOf } = await import("./source-tar.ts");
    for (const path of check.files) {
      const tar = await tarOf(resolve(source.folder ?? "", path));
      files[path] = (await context.client.stacks.uploadFiles(tar)).digest;
    }
  }
  const env: Record<string, string> = {};
  for (const name of check.env) {
    const value = context.env[name];
    if (value !== undefined) env[name] = value;
  }
  return { ...source, files, env };
}

/** The stack that was named, or the one that the file in this folder declares. */
export async function stackNamed(named: string | undefined, context: Context): Promise<string> {
  if (named !== undefined) return named;
  let source: StackSource;
  try {
    source = await readStackFile(undefined, context);
  } catch (error) {
    throw new Fault("invalid", "which stack? there is no stack file in this folder", {
      hint: "name the stack; croft stack ls lists them",
      cause: error,
    });
  }
  const { stack } = await context.client.stacks.check({ source });
  if (stack === "") throw new Fault("invalid", `${source.path} has errors`, { hint: "see: croft check" });
  return stack;
}
