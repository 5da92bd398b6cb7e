import type { CommandLine } from "./command-line.ts";
import { valueOf } from "./command-line.ts";
import { parsed, readText } from "./config/bundle.ts";
import { type Ground, keptFds } from "./ground.ts";
import { becomeRuntime } from "./namespace/become.ts";
import { isSuspect, programOf, rootOfRunning, runSuspect } from "./namespace/suspect.ts";
import { engineRoot } from "./place.ts";

/** Becomes crun to run a program in a container of its; as a child when there may be something to say afterwards. */
export async function execContained(ground: Ground, id: string, argv: readonly string[]): Promise<number> {
  const { line, place } = ground;
  const wanted = processOfExec(line);
  const root = rootOfRunning(engineRoot(place, "crun"), id);
  if (root !== undefined && isSuspect(root, wanted)) {
    return await runSuspect(ground, argv, programOf(wanted), keptFds(line));
  }
  return becomeRuntime(ground, "crun", argv);
}

/** What `exec` would run, as a configuration has it. */
function processOfExec({ flags, words }: CommandLine): unknown {
  const file = valueOf(flags, "process");
  if (file !== undefined) return parsed(readText(file), file);
  const path = flags.get("env")?.findLast((pair) => typeof pair === "string" && pair.startsWith("PATH="));
  return { args: words.slice(1), cwd: valueOf(flags, "cwd") ?? "/", env: path === undefined ? [] : [path] };
}
