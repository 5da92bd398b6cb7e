import { spawnSync } from "node:child_process";
import { Fault } from "../base/fault.ts";
import { wordsOf } from "./command-line.ts";
import type { Ground } from "./ground.ts";
import { idsOf } from "./claim.ts";
import { engineNames } from "./place.ts";

/** `kill --regex` and `delete --regex`: the command for each container whose id matches, whatever its engine. */
export function actOnMatching({ line, place }: Ground): number {
  const [pattern = "", ...rest] = line.words;
  let expression: RegExp;
  try {
    expression = new RegExp(pattern);
  } catch (error) {
    throw new Fault("invalid", `--regex ${pattern}: ${(error as Error).message}`, { cause: error });
  }
  const ids = engineNames.flatMap((engine) => idsOf(place, engine)).filter((id) => expression.test(id));
  let code = 0;
  for (const id of ids) {
    const argv = [...wordsOf(line.globals), line.command ?? "", ...wordsOf(line.flags, ["regex"]), id, ...rest];
    const own = process.versions["bun"] === undefined ? [process.argv[1] ?? ""] : [];
    const { status } = spawnSync(process.execPath, [...process.execArgv, ...own, ...argv], { stdio: "inherit" });
    if (status !== 0) code = 1;
  }
  return code;
}
