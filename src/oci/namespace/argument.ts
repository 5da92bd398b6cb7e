import { Fault } from "../../base/fault.ts";
import { type CommandLine, type CommandName, type Said, valueOf, wordsOf } from "../command-line.ts";
import type { RuntimeName } from "./program.ts";

/** Options of a command that one of the runtimes does not have: refused, as leaving them out changes what was asked. */
const lacking: Readonly<Record<RuntimeName, Readonly<Partial<Record<CommandName, readonly string[]>>>>> = {
  crun: {
    exec: ["additional-gids"],
    update: ["cpu-burst", "cpu-idle", "l3-cache-schema", "mem-bw-schema"],
  },
  runc: {
    create: ["config"],
    run: ["config"],
    kill: ["regex"],
    delete: ["regex"],
  },
};

/** Options that say how much trouble the runtime takes; one that does not know them takes that trouble anyway. */
const indifferent: Readonly<Record<RuntimeName, readonly string[]>> = {
  crun: ["ignore-paused", "criu", "engine", "rules"],
  runc: ["no-subreaper", "cgroup-manager", "kernel-memory", "kernel-memory-tcp", "engine", "rules"],
};

/** The command line by which a runtime does what ours was asked for. `root` is where it keeps its records; `flags` stand in for those of the command line. */
export function argumentsFor(
  name: RuntimeName,
  program: string,
  root: string,
  { globals, command, words }: CommandLine,
  flags: Said,
): readonly string[] {
  if (command === undefined) throw new Fault("bug", "no command to hand over");
  const without = lacking[name][command]?.find((flag) => flags.has(flag));
  if (without !== undefined) throw new Fault("unsupported", `${command}: ${name} has no --${without}`);
  const global = new Map(globals);
  global.set("root", [root]);
  if (name === "runc") {
    if (valueOf(globals, "cgroup-manager") === "systemd") global.set("systemd-cgroup", [true]);
    const log = valueOf(globals, "log");
    if (log !== undefined) global.set("log", [log.replace(/^file:/, "")]);
  }
  return [
    program,
    ...wordsOf(global, indifferent[name]),
    command,
    ...wordsOf(flags, indifferent[name]),
    // What follows may begin with a dash.
    ...(command === "exec" ? ["--"] : []),
    ...words,
  ];
}
