import { Fault } from "../base/fault.ts";
import { exists } from "../host/door.ts";
import { openHandover } from "../host/handover.ts";
import { type CommandLine, commands, type Flag, globalsOf, parseCommandLine, valueOf } from "./command-line.ts";
import { type Ground, print, specVersion, type Wiring } from "./ground.ts";
import { logOf } from "./log.ts";
import { becomeRuntime } from "./namespace/become.ts";
import { runNamespaceCommand } from "./namespace/command.ts";
import { checkId, defaultRoot, engineRoot, ownerOf, type Place, requireOwner } from "./place.ts";
import { builtInConfig, type HostConfig, hostConfigFiles, targets } from "./route.ts";

/** Runs one command and returns the exit code; most of them become another program instead. */
export async function main(argv: readonly string[], version: string, wiring: Wiring): Promise<number> {
  let line: CommandLine = { globals: new Map(), flags: new Map(), words: [] };
  try {
    line = parseCommandLine(argv);
    if (line.globals.has("version")) return print(`croft-oci version ${version}\nspec: ${specVersion}\n`);
    if (line.command === undefined || line.globals.has("help")) return print(help(line.words[0]));
    return await dispatch(line, argv, wiring);
  } catch (thrown) {
    // Where to log is said at the front, so it is known even when what follows is not understood.
    const log = logOf(line.globals.size === 0 ? { ...line, globals: globalsOf(argv) } : line);
    log.error(Fault.from(thrown, line.command ?? "croft-oci"));
    return 1;
  }
}

async function dispatch(line: CommandLine, argv: readonly string[], wiring: Wiring): Promise<number> {
  const place: Place = { root: absolute(valueOf(line.globals, "root") ?? defaultRoot()) };
  const host = await hostConfig(valueOf(line.globals, "rules"));
  const ground: Ground = { line, place, host, log: logOf(line), handover: openHandover(), wiring, argv };
  switch (line.command) {
    case "create":
    case "run":
    case "restore":
      return await (await import("./create.ts")).create(ground);
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

/** A plain path is what it is; for all others, who knows about paths is asked. */
function absolute(path: string): string {
  return /^(\/[^/.][^/]*)+$/.test(path) ? path : process.getBuiltinModule("node:path").resolve(path);
}

/** Without a file, as on most hosts, what reads one is not loaded. */
async function hostConfig(said: string | undefined): Promise<HostConfig> {
  if (said === undefined && !hostConfigFiles.some(exists)) return builtInConfig;
  return await (await import("./host-rules.ts")).readHostConfig(said);
}

/** A container is there already: its engine is the one that has it. */
async function act(ground: Ground): Promise<number> {
  const { line, place } = ground;
  const id = line.words[0] ?? "";
  if (line.flags.has("regex")) {
    const { actOnMatching } = await import("./matching.ts");
    return actOnMatching(ground);
  }
  if (line.command === "delete" && line.flags.has("force")) {
    checkId(id);
    // As runc has it: to force away what is not there is to be content.
    if (!["crun", "runc", "microvm", "machine"].some((engine) => exists(`${place.root}/${engine}/${id}`))) return 0;
    // Killed between the two, it left only the second; and another engine may have made one of that name since.
    if (exists(`${place.root}/machine/${id}`)) {
      const { removeMachine } = await import("./microvm/remove.ts");
      const code = removeMachine(ground, id);
      if (code !== 0 || ownerOf(place, id) === undefined) return code;
    }
  }
  const owner = requireOwner(place, id);
  if (owner === "microvm") {
    if (line.command === "start" && ground.wiring.maker === undefined) {
      return (await import("./create.ts")).becomeElsewhere(ground);
    }
    const { actOnMicrovm } = await import("./microvm/command.ts");
    const outcome = await actOnMicrovm(ground);
    return typeof outcome === "number" ? outcome : becomeRuntime(ground, "crun", outcome);
  }
  const outcome = await runNamespaceCommand(ground, owner, engineRoot(place, owner), id);
  if (typeof outcome === "number") return outcome;
  if (line.command === "exec" && owner === "crun") {
    const { execContained } = await import("./exec.ts");
    return await execContained(ground, id, outcome);
  }
  return becomeRuntime(ground, owner, outcome);
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
  const flags = Object.entries<Flag>(found.flags).map(([flag, { short, takes }]) => {
    const value = { none: "", one: " VALUE", many: " VALUE …", maybe: "[=true|false]" }[takes];
    return `  ${short === undefined ? "   " : `-${short},`} --${flag}${value}\n`;
  });
  const usage = `croft-oci ${name} ${flags.length === 0 ? "" : "[OPTION …] "}${found.shows}`.trimEnd();
  return `${usage}\n${flags.length === 0 ? "" : `\nOptions:\n${flags.join("")}`}`;
}
