import { existsSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Fault, isFault } from "../../base/fault.ts";
import type { ExecSpec, ProgramLaunch } from "../../instance/contract.ts";
import { valueOf } from "../command-line.ts";
import { refused } from "../config/bundle.ts";
import { own } from "../config/shape.ts";
import { type Ground, keptFds } from "../ground.ts";
import { argumentsFor } from "../namespace/argument.ts";
import { processIn } from "../namespace/checked.ts";
import { runNamespaceCommand } from "../namespace/command.ts";
import { isHalfMade } from "../namespace/half-made.ts";
import { requireProgram } from "../namespace/program.ts";
import { engineRoot } from "../place.ts";
import { signalNumber } from "../signal.ts";
import { insideProgram, shared } from "./contract.ts";
import { ask } from "./control.ts";
import type { ProcessSettings } from "../../instance/guest.ts";
import { environmentOf } from "./launch.ts";
import { execSettings, listOf, processFindings, userOf } from "./process.ts";
import { type MachineFiles, machineFiles, readRecord } from "./record.ts";
import { taskVariable, type RelayTask } from "./relay.ts";
import { removeMachine } from "./remove.ts";

/**
 * A command on a container that is a microVM: its exit code, or the command line to become. To crun it is a container
 * like any other; what concerns the program is asked of the guest.
 */
export async function actOnMicrovm(ground: Ground): Promise<number | readonly string[]> {
  const { line, place, host } = ground;
  const id = line.words[0] ?? "";
  const root = engineRoot(place, "microvm");
  const files = machineFiles(place, id);
  if (line.command === "delete") return removeMachine(ground, id);
  const asCrun = (): Promise<number | readonly string[]> => runNamespaceCommand(ground, "crun", root, id);
  if (isHalfMade(root, "crun", id)) return await asCrun();
  switch (line.command) {
    case "start": {
      const { startMicrovm } = await import("./start.ts");
      return await startMicrovm(ground, id);
    }
    case "kill":
      return await killProgram(ground, id, files, asCrun);
    case "exec":
      return await execArguments(ground, id, files, requireProgram("crun", host), root);
    case "update":
      if (!isRunning(files)) throw new Fault("precondition", `update ${id}: container not running`);
      return await (await import("./update.ts")).updateLimits(ground, id, files, root);
    case "checkpoint":
      throw new Fault("unsupported", `checkpoint ${id}: a microVM cannot be checkpointed`);
    default:
      return await asCrun();
  }
}

/** What ends it for sure ends the machine; every other signal is the program's. */
async function killProgram(
  { line }: Ground,
  id: string,
  files: MachineFiles,
  asCrun: () => Promise<number | readonly string[]>,
): Promise<number | readonly string[]> {
  const number = signalNumber(line.words[1] ?? "SIGTERM");
  if (number === 9 || !isRunning(files)) return await asCrun();
  try {
    const [answer] = await ask(join(files.shared, shared.control), `kill ${number}`);
    if (answer === "ok") return 0;
  } catch (error) {
    // A guest that has gone has ended: crun says so in words that callers know.
    if (!isFault(error, "unavailable")) throw error;
    return await asCrun();
  }
  throw new Fault("precondition", `kill ${id}: container not running`);
}

/** Whether the guest ran its program; it may have ended since. */
function isRunning(files: MachineFiles): boolean {
  return existsSync(join(files.shared, shared.started));
}

/** A relay in the container around QEMU, which crun starts as it would start the program itself. */
async function execArguments(
  ground: Ground,
  id: string,
  files: MachineFiles,
  program: string,
  root: string,
): Promise<readonly string[]> {
  const { line, wiring, handover } = ground;
  if (!isRunning(files)) throw new Fault("precondition", `exec ${id}: container not running`);
  const kept = keptFds(line);
  if (kept > 0) throw new Fault("unsupported", `exec ${id}: a microVM cannot be handed ${kept} descriptors`);
  const { launch, settings } = readRecord(files);
  const { spec, process } = specOf(ground, launch);
  if (spec.argv.length === 0) throw new Fault("invalid", `exec ${id}: the command is missing`);
  const execScript = await wiring.execScript();
  const task: RelayTask = {
    script: execScript(launch, spec, asSaid(line, execSettings(process, settings.process))),
    hostKey: hostKeyOf(files),
    terminal: spec.terminal !== undefined,
  };
  const relay = {
    terminal: spec.terminal !== undefined,
    ...(own(process, "consoleSize") === undefined ? {} : { consoleSize: own(process, "consoleSize") }),
    user: { uid: files.uid, gid: files.uid },
    args: [insideProgram, "--relay-program"],
    env: ["PATH=/usr/bin", `TERM=${spec.env["TERM"] ?? "xterm"}`, `${taskVariable}=${JSON.stringify(task)}`],
    cwd: "/",
    noNewPrivileges: true,
  };
  const { fd, path } = handover.memoryFile("process.json");
  const bytes = Buffer.from(JSON.stringify(relay));
  for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written);
  const passed = new Set(["detach", "pid-file", "console-socket"]);
  const flags = new Map([...line.flags].filter(([name]) => passed.has(name)));
  flags.set("process", [path]);
  return argumentsFor("crun", program, root, { ...line, words: [id] }, flags);
}

function hostKeyOf(files: MachineFiles): string {
  const key: unknown = JSON.parse(readFileSync(join(files.directory, shared.key), "utf8"));
  return String(own(key, "publicBlob"));
}

/** Options win over the file. */
function asSaid({ flags }: Ground["line"], settings: ProcessSettings): ProcessSettings {
  const added = (flags.get("cap") ?? []).map((name) => String(name).toUpperCase().replace(/^CAP_/, ""));
  return {
    ...settings,
    bounding: [...new Set([...settings.bounding, ...added])],
    ambient: [...new Set([...settings.ambient, ...added])],
    ...(flags.has("no-new-privs") ? { gainsPrivileges: false } : {}),
  };
}

/** What is to be run, by a file or by options. */
function specOf({ line }: Ground, launch: ProgramLaunch): { readonly spec: ExecSpec; readonly process: unknown } {
  const { flags, words } = line;
  const file = valueOf(flags, "process");
  if (file === undefined) {
    const user = valueOf(flags, "user");
    const workdir = valueOf(flags, "cwd");
    const env = (flags.get("env") ?? []).filter((pair): pair is string => typeof pair === "string");
    return {
      process: {},
      spec: {
        argv: words.slice(1),
        env: environmentOf(env),
        ...(user === undefined ? {} : { user }),
        ...(workdir === undefined ? {} : { workdir }),
        ...(flags.has("tty") ? { terminal: { columns: 80, rows: 24 } } : {}),
        stdin: true,
      },
    };
  }
  const process = processIn(file);
  const unsupported = processFindings(process);
  if (unsupported.length > 0) throw new Fault("unsupported", refused(file, unsupported).message);
  const user = userOf(own(process, "user"));
  return {
    process,
    spec: {
      argv: listOf(process, "args"),
      env: environmentOf(listOf(process, "env")),
      ...(user === launch.user ? {} : { user }),
      workdir: String(own(process, "cwd")),
      ...(own(process, "terminal") === true ? { terminal: { columns: 80, rows: 24 } } : {}),
      stdin: true,
    },
  };
}
