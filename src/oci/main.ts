import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { Fault } from "../base/fault.ts";
import { openHandover } from "../host/handover.ts";
import { type CommandLine, commands, parseCommandLine, valueOf } from "./command-line.ts";
import { type Bundle, parsed, readBundle, readText } from "./config/bundle.ts";
import { own } from "./config/shape.ts";
import { readHostConfig } from "./host-rules.ts";
import { decisionFor, type Ground, print, specVersion, type Wiring } from "./ground.ts";
import { logOf } from "./log.ts";
import { runNamespaceCommand } from "./namespace/command.ts";
import { prepareContainer } from "./namespace/make.ts";
import { isSuspect, rootOfRunning, runSuspect } from "./namespace/suspect.ts";
import { checkId, claim, defaultRoot, engineRoot, type Place, requireOwner } from "./place.ts";
import { targets } from "./route.ts";

/** Runs one command and returns the exit code; most of them become another program instead. */
export async function main(argv: readonly string[], version: string, wiring: Wiring): Promise<number> {
  let line: CommandLine = { globals: new Map(), flags: new Map(), words: [] };
  try {
    line = parseCommandLine(argv);
    if (line.globals.has("version")) return print(`croft-oci version ${version}\nspec: ${specVersion}\n`);
    if (line.command === undefined || line.globals.has("help")) return print(help(line.words[0]));
    return await dispatch(line, argv, wiring);
  } catch (thrown) {
    logOf(line.globals.size === 0 ? loggingOf(argv) : line).error(Fault.from(thrown, line.command ?? "croft-oci"));
    return 1;
  }
}

async function dispatch(line: CommandLine, argv: readonly string[], wiring: Wiring): Promise<number> {
  const root = valueOf(line.globals, "root") ?? defaultRoot();
  const place: Place = { root: resolve(root) };
  const host = await readHostConfig(valueOf(line.globals, "rules"));
  const ground: Ground = { line, place, host, log: logOf(line), handover: await openHandover(), wiring, argv };
  switch (line.command) {
    case "create":
    case "run":
    case "restore":
      return await make(ground);
    case "list":
      return (await import("./list.ts")).list(ground);
    case "spec":
      return (await import("./spec.ts")).spec(ground);
    case "features":
      return (await import("./features.ts")).features(ground);
    case "doctor":
      return (await import("./doctor.ts")).doctor(ground);
    default:
      return await act(ground);
  }
}

/** A container is made: which engine serves it is decided here, and everything that cannot be is refused here. */
async function make(ground: Ground): Promise<number> {
  const { line, place } = ground;
  const id = line.words[0] ?? "";
  checkId(id);
  const bundle = readBundle(valueOf(line.flags, "bundle") ?? ".", valueOf(line.flags, "config"));
  const decision = decisionFor(ground, id, bundle.config);
  ground.log.debug(`${id}: ${decision.target}, because of ${decision.why}`);
  if (decision.target === "microvm") return await makeMicrovm(ground, id, bundle);
  const { name, argv } = prepareContainer(ground, bundle, decision.target);
  claim(place, id, ground.handover);
  if (name === "crun" && line.command !== "restore" && isSuspect(bundle.root, bundle.config["process"])) {
    return await runSuspect(ground, argv, programOf(bundle.config["process"]), keptFds(line));
  }
  return ground.handover.become(argv, process.env, keptFds(line));
}

async function makeMicrovm(ground: Ground, id: string, bundle: Bundle): Promise<number> {
  const { line, wiring, handover } = ground;
  if (line.command === "restore") throw new Fault("unsupported", `restore ${id}: a microVM has no checkpoints`);
  if (wiring.maker === undefined) return becomeElsewhere(ground);
  const { prepareMicrovm } = await import("./microvm/make.ts");
  const argv = await prepareMicrovm(ground, id, bundle);
  if (line.command === "create") return handover.become(argv, process.env, keptFds(line));
  const { runMicrovm } = await import("./microvm/run.ts");
  return await runMicrovm(ground, id, argv);
}

/** The same command again, in a program that can do it. */
function becomeElsewhere({ wiring, handover, argv, line }: Ground): never {
  const program = wiring.elsewhere?.();
  if (program === undefined) throw new Fault("bug", "nothing makes microVMs here");
  return handover.become([...program, ...argv], process.env, keptFds(line));
}

/** A container is there already: its engine is the one that has it. */
async function act(ground: Ground): Promise<number> {
  const { line, place, handover } = ground;
  const id = line.words[0] ?? "";
  if (line.flags.has("regex")) {
    const { actOnMatching } = await import("./matching.ts");
    return actOnMatching(ground);
  }
  if (line.command === "delete" && line.flags.has("force")) {
    checkId(id);
    // As runc has it: to force away what is not there is to be content.
    if (!["crun", "runc", "microvm", "machine"].some((engine) => existsSync(join(place.root, engine, id)))) return 0;
    // Killed between the two, it left only the second.
    if (existsSync(join(place.root, "machine", id))) {
      const { removeMachine } = await import("./microvm/remove.ts");
      return removeMachine(ground, id);
    }
  }
  const owner = requireOwner(place, id);
  if (owner === "microvm") {
    if (line.command === "start" && ground.wiring.maker === undefined) return becomeElsewhere(ground);
    const { actOnMicrovm } = await import("./microvm/command.ts");
    const outcome = await actOnMicrovm(ground);
    return typeof outcome === "number" ? outcome : handover.become(outcome, process.env, keptFds(line));
  }
  const outcome = await runNamespaceCommand(ground, owner, engineRoot(place, owner), id);
  if (typeof outcome === "number") return outcome;
  const wanted = line.command === "exec" && owner === "crun" ? processOfExec(line) : undefined;
  const root = wanted === undefined ? undefined : rootOfRunning(engineRoot(place, owner), id);
  if (root !== undefined && isSuspect(root, wanted)) {
    return await runSuspect(ground, outcome, programOf(wanted), keptFds(line));
  }
  return handover.become(outcome, process.env, keptFds(line));
}

function programOf(process: unknown): string {
  const args = own(process, "args");
  return Array.isArray(args) ? String(args[0]) : "";
}

/** What `exec` would run, as a configuration has it. */
function processOfExec({ flags, words }: CommandLine): unknown {
  const file = valueOf(flags, "process");
  if (file !== undefined) return parsed(readText(file), file);
  const path = flags.get("env")?.findLast((pair) => typeof pair === "string" && pair.startsWith("PATH="));
  return { args: words.slice(1), cwd: valueOf(flags, "cwd") ?? "/", env: path === undefined ? [] : [path] };
}

function keptFds({ flags }: CommandLine): number {
  const said = valueOf(flags, "preserve-fds") ?? "0";
  const listening = Number(process.env["LISTEN_FDS"] ?? 0);
  if (!/^\d{1,5}$/.test(said)) throw new Fault("invalid", `--preserve-fds ${said}: expected a number`);
  return Number(said) + (Number.isInteger(listening) && listening > 0 ? listening : 0);
}

/** Where to log is said at the front, so it is known even when what follows is not understood. */
function loggingOf(argv: readonly string[]): CommandLine {
  const globals = new Map<string, readonly string[]>();
  for (const [index, word] of argv.entries()) {
    const found = /^--?(log|log-format)(?:=(.*))?$/.exec(word);
    if (found?.[1] !== undefined) globals.set(found[1], [found[2] ?? argv[index + 1] ?? ""]);
  }
  return { globals, flags: new Map(), words: [] };
}

function help(command: string | undefined): string {
  const known = Object.entries(commands);
  const [name, found] = known.find(([name]) => name === command) ?? [];
  if (found === undefined) {
    return `croft-oci [OPTION …] COMMAND [OPTION …] [ARGUMENT …]

An OCI runtime (specification ${specVersion}): containers in namespaces and in microVMs.

Commands: ${known.map(([name]) => name).join(", ")}
Options:  --root DIR, --log FILE, --log-format text|json, --debug, --systemd-cgroup, --cgroup-manager NAME,
          --rootless VALUE, --criu PATH, --engine ${targets.join("|")}, --rules FILE, --version, --help
`;
  }
  const flags = Object.keys(found.flags).map((flag) => `--${flag}`);
  return `croft-oci ${name} ${flags.length === 0 ? "" : "[OPTION …] "}${found.shows}\n${flags.length === 0 ? "" : `\nOptions: ${flags.join(", ")}\n`}`;
}
