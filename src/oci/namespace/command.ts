import { existsSync, fstatSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import { type Said, valueOf } from "../command-line.ts";
import { decoded, parsed, readAll, readText, refused } from "../config/bundle.ts";
import { processShape, resourcesShape } from "../config/schema.ts";
import { rlimitFindings } from "../config/sense.ts";
import { findingsOf, isJson, type Json } from "../config/shape.ts";
import type { Ground } from "../ground.ts";
import { argumentsFor } from "./argument.ts";
import { clearHalfMade, isHalfMade } from "./leftover.ts";
import { requireProgram, type RuntimeName } from "./program.ts";

/** A command on a container that crun or runc has in `root`: its exit code, or the command line to become. */
export async function runNamespaceCommand(
  ground: Ground,
  name: RuntimeName,
  root: string,
  id: string,
): Promise<number | readonly string[]> {
  const { line, host } = ground;
  if (isHalfMade(root, name, id)) {
    if (line.command !== "delete" || !line.flags.has("force")) {
      throw new Fault("precondition", `${line.command} ${id}: the container was not made to its end`, {
        hint: `delete --force ${id}`,
      });
    }
    clearHalfMade(root, name, id);
    return 0;
  }
  const program = requireProgram(name, host);
  switch (line.command) {
    case "start":
      // crun would speak of a fifo that is not there.
      if (name === "crun" && !existsSync(join(root, id, "exec.fifo"))) {
        throw new Fault("precondition", `start ${id}: the container is not in the state "created"`);
      }
      break;
    case "exec":
      checkProcessFile(valueOf(line.flags, "process"));
      return argumentsFor(name, program, root, line, line.flags);
    case "update":
      return argumentsFor(name, program, root, line, checkedResources(ground, name));
    case "events":
      if (name === "runc") break;
      return (await import("./events.ts")).events(ground, program, root, id);
    case "checkpoint": {
      const { canCheckpoint } = await import("./make.ts");
      if (!canCheckpoint(name, program)) {
        throw new Fault("unsupported", `checkpoint ${id}: this ${name} cannot use CRIU`, {
          hint: name === "runc" ? "apt-get install criu" : 'containers of an engine = "runc" can be',
        });
      }
      break;
    }
    default:
  }
  return argumentsFor(name, program, root, line, line.flags);
}

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

function checkProcessFile(file: string | undefined): void {
  if (file === undefined) return;
  const process = parsed(readText(file), file);
  const findings = findingsOf(processShape, process);
  const all = findings.length > 0 ? findings : rlimitFindings({ rlimits: process["rlimits"] });
  if (all.length > 0) throw refused(file, all);
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
function checkedResources(ground: Ground, name: RuntimeName): Said {
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
