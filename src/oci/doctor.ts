import { existsSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../base/fault.ts";
import { valueOf } from "./command-line.ts";
import { readBundle } from "./config/bundle.ts";
import { decisionFor, type Ground, print } from "./ground.ts";
import { chooseRuntime } from "./namespace/probe.ts";
import { findProgram } from "./namespace/program.ts";
import { idsOf } from "./claim.ts";
import { engineNames, ownerOf } from "./place.ts";

/** What works on this host, which rules hold, and which engine a container has or a bundle would get, and why. */
export function doctor(ground: Ground): number {
  const { line, place, host } = ground;
  const lines: string[] = [];
  const row = (name: string, value: string): void => void lines.push(`${name.padEnd(12)} ${value}`);
  row("root", place.root);
  for (const name of ["crun", "runc"] as const) row(name, findProgram(name, host) ?? "not installed");
  let works = true;
  try {
    const { name, detail } = chooseRuntime(host, place);
    row("container", `${name}: ${detail}`);
  } catch (thrown) {
    works = false;
    const { message, hint } = Fault.from(thrown, "try the runtimes");
    row("container", hint === undefined ? message : `${message} (${hint})`);
  }
  row("rules", `${host.rules.rules.length} (${host.rules.source}), otherwise ${host.rules.default}`);
  for (const engine of engineNames) {
    const count = idsOf(place, engine).length;
    if (count > 0) row("has", `${count} of ${engine}`);
  }
  const [id] = line.words;
  const owner = id === undefined ? undefined : ownerOf(place, id);
  const said = valueOf(line.flags, "bundle");
  if (owner !== undefined) row("engine", `${owner}, because ${id} was made with it`);
  else if (said !== undefined || existsSync(join(".", "config.json"))) {
    const { target, why } = decisionFor(ground, id, readBundle(said ?? ".").config);
    row("engine", `${target}, because of ${why}`);
  }
  print(`${lines.join("\n")}\n`);
  return works ? 0 : 1;
}
