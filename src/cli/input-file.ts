import { statSync } from "node:fs";
import { resolve } from "node:path";
import { Fault } from "../base/fault.ts";

/** The absolute path of a file that a command line names; `not-found` or `invalid` when there is none to read. */
export function inputFile(named: string, directory: string): string {
  const path = resolve(directory, named);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw new Fault("not-found", `there is no file ${named}`);
  if (found.isDirectory()) throw new Fault("invalid", `${named} is a folder`, { hint: "name a file" });
  return path;
}
