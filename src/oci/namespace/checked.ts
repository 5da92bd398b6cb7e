import { fstatSync, writeSync } from "node:fs";
import { type Said, valueOf } from "../command-line.ts";
import { decoded, parsed, readAll, readText, refused } from "../config/bundle.ts";
import { processShape, resourcesShape } from "../config/schema.ts";
import { rlimitFindings } from "../config/sense.ts";
import { findingsOf, isJson, type Json } from "../config/shape.ts";
import type { Ground } from "../ground.ts";
import type { RuntimeName } from "./program.ts";

/** For runc, and so for its callers, a 0 or an empty text changes nothing; crun would set it. */
function withoutUnset(value: Json): Json {
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, entry]) =>
      entry === 0 || entry === "" || entry === null ? [] : [[name, isJson(entry) ? withoutUnset(entry) : entry]],
    ),
  );
}

function hasUnset(value: Json): boolean {
  return Object.values(value).some((entry) => entry === 0 || entry === "" || (isJson(entry) && hasUnset(entry)));
}

/** The process in a file that `exec --process` names, read and found right. */
export function processIn(file: string): Json {
  const process = parsed(readText(file), file);
  const findings = findingsOf(processShape, process, "process");
  const all = findings.length > 0 ? findings : rlimitFindings(process);
  if (all.length > 0) throw refused(file, all);
  return process;
}

/** What `--resources` says, read and found right; undefined when it was not said. */
export function resourcesText({ line }: Ground): string | undefined {
  const file = valueOf(line.flags, "resources");
  if (file === undefined) return undefined;
  const isStdin = file === "-" || (file === "/dev/stdin" && !fstatSync(0).isFile());
  const said = isStdin ? decoded(readAll(0), "standard input") : readText(file);
  const findings = findingsOf(resourcesShape, parsed(said, file));
  if (findings.length > 0) throw refused(file, findings);
  return said;
}

/** The resources, read and found right, in a file of memory: what stands at the end of a pipe is there only once. */
export function checkedResources(ground: Ground, name: RuntimeName): Said {
  const { line, handover } = ground;
  const said = resourcesText(ground);
  if (said === undefined) return line.flags;
  const resources = parsed(said, "resources");
  const text = name === "crun" && hasUnset(resources) ? JSON.stringify(withoutUnset(resources)) : said;
  const { fd, path } = handover.memoryFile("resources.json");
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written);
  return new Map(line.flags).set("resources", [path]);
}
