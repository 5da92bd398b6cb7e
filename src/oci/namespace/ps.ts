import { spawnSync } from "node:child_process";
import { Fault } from "../../base/fault.ts";
import { type Ground, print } from "../ground.ts";

/** What `ps` of the host shows, with the options that were given, of the processes in a container: as runc has it, and crun has not. */
export function showProcesses({ line }: Ground, program: string, root: string, id: string): number {
  const inside = new Set(JSON.parse(output([program, "--root", root, "ps", "--format", "json", id])) as number[]);
  const [head = "", ...rows] = output(["ps", ...line.words.slice(1)]).split("\n");
  const column = fieldsOf(head).indexOf("PID");
  if (column === -1) throw new Fault("invalid", `ps ${id}: with these options ps shows no column PID`);
  const shown = rows.filter((row) => inside.has(Number(fieldsOf(row)[column])));
  return print([head, ...shown].map((row) => `${row}\n`).join(""));
}

function fieldsOf(row: string): readonly string[] {
  return row.trim().split(/\s+/);
}

function output(argv: readonly string[]): string {
  const [program = "", ...args] = argv;
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8", timeout: 30_000 });
  if (status !== 0) throw new Fault("failed", error?.message ?? `${program}: ${stderr.trim()}`);
  return stdout;
}
