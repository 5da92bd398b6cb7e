import { spawnSync } from "node:child_process";
import { Fault } from "../base/fault.ts";
import { valueOf } from "./command-line.ts";
import { isJson, type Json } from "./config/shape.ts";
import { type Ground, print } from "./ground.ts";
import { findProgram } from "./namespace/program.ts";
import { idsOf } from "./claim.ts";
import { engineNames, engineRoot } from "./place.ts";

/** All containers beneath the root, of all engines, as runc lists its own. */
export function list(ground: Ground): number {
  const { line, place } = ground;
  const format = valueOf(line.flags, "format") ?? "table";
  if (format !== "table" && format !== "json") {
    throw new Fault("invalid", `list: --format ${format}: there is table, json`);
  }
  if (line.flags.has("quiet")) {
    const ids = engineNames.flatMap((engine) => idsOf(place, engine)).sort();
    return print(ids.map((id) => `${id}\n`).join(""));
  }
  const containers = [...namespaceContainers(ground)].sort((a, b) => (text(a, "id") < text(b, "id") ? -1 : 1));
  if (format === "json") return print(`${JSON.stringify(containers)}\n`);
  const rows = [
    ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"],
    ...containers.map((one) => ["id", "pid", "status", "bundle", "created", "owner"].map((name) => text(one, name))),
  ];
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const shown = rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
  return print(shown.map((row) => `${row.trimEnd()}\n`).join(""));
}

function* namespaceContainers({ place, host, log }: Ground): Iterable<Json> {
  for (const engine of engineNames) {
    if (idsOf(place, engine).length === 0) continue;
    // A microVM is a container of crun's, with QEMU in it.
    const name = engine === "microvm" ? "crun" : engine;
    const program = findProgram(name, host);
    if (program === undefined) {
      log.warn(`list: ${name} is not installed, so its containers are not shown`);
      continue;
    }
    const argv = ["--root", engineRoot(place, engine), "list", "--format", "json"];
    const { status, stdout, stderr } = spawnSync(program, argv, { encoding: "utf8", timeout: 30_000 });
    if (status !== 0) throw new Fault("failed", `list: ${name}: ${stderr.trim()}`);
    const found: unknown = JSON.parse(stdout);
    if (Array.isArray(found)) yield* found.filter(isJson);
  }
}

function text(container: Json, name: string): string {
  const value = container[name];
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}
