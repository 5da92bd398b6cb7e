import { existsSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { ExecSpec, Limits, ProgramLaunch } from "../../instance/contract.ts";
import { valueOf } from "../command-line.ts";
import { parsed, readText, refused } from "../config/bundle.ts";
import { processShape } from "../config/schema.ts";
import { findingsOf, own } from "../config/shape.ts";
import { type Ground, keptFds } from "../ground.ts";
import { argumentsFor } from "../namespace/argument.ts";
import { resourcesText } from "../namespace/checked.ts";
import { runNamespaceCommand } from "../namespace/command.ts";
import { isHalfMade } from "../namespace/half-made.ts";
import { requireProgram } from "../namespace/program.ts";
import { engineRoot } from "../place.ts";
import { signalNumber } from "../signal.ts";
import { insideProgram, shared } from "./contract.ts";
import { ask } from "./control.ts";
import type { ProcessSettings } from "../../instance/guest.ts";
import { environmentOf, limitsOf } from "./launch.ts";
import { execSettings, limitFindings, listOf, userOf } from "./process.ts";
import { type MachineFiles, machineFiles, readRecord, writeLaunch } from "./record.ts";
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
      return await updateLimits(ground, id, files);
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
  const [answer] = await ask(join(files.shared, shared.control), `kill ${number}`);
  if (answer !== "ok") throw new Fault("precondition", `kill ${id}: container not running`);
  return 0;
}

/** Whether the guest runs its program, and can be asked. */
function isRunning(files: MachineFiles): boolean {
  return existsSync(join(files.shared, shared.started)) && !existsSync(join(files.shared, "ended"));
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
  const process = parsed(readText(file), file);
  const findings = findingsOf(processShape, process);
  if (findings.length > 0) throw refused(file, findings);
  const limits = limitFindings(process);
  if (limits.length > 0) throw new Fault("unsupported", refused(file, limits).message);
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

/** The guest keeps its program's limits, as a control group of the host does a container's. */
async function updateLimits(ground: Ground, id: string, files: MachineFiles): Promise<number> {
  const { line } = ground;
  if (!isRunning(files)) throw new Fault("precondition", `update ${id}: container not running`);
  const text = resourcesText(ground);
  const number = (name: string): number | undefined => {
    const said = valueOf(line.flags, name);
    return said === undefined ? undefined : Number(said);
  };
  const resources =
    text === undefined
      ? {
          memory: { limit: number("memory") },
          pids: { limit: number("pids-limit") },
          cpu: { quota: number("cpu-quota"), period: number("cpu-period") },
        }
      : parsed(text, "resources");
  const { launch } = readRecord(files);
  const limits: Limits = { ...launch.limits, ...limitsOf(resources) };
  const most = highestBytes(files);
  if ((limits.memoryBytes ?? 0) > most) {
    throw new Fault("unsupported", `update ${id}: memory.limit: its machine has ${most} bytes for its program`);
  }
  if (Math.ceil(limits.cpus ?? 1) > Math.max(1, Math.ceil(launch.limits.cpus ?? 1))) {
    throw new Fault("unsupported", `update ${id}: cpu.quota: its machine has fewer processors`);
  }
  const question = `limit ${limits.memoryBytes ?? "max"} ${limits.pids ?? "max"}`;
  const [answer] = await ask(join(files.shared, shared.control), question);
  if (answer !== "ok") throw new Fault("failed", `update ${id}: the guest's kernel refuses`);
  writeLaunch(files, { ...launch, limits });
  return 0;
}

/** Kernel, page tables and our own processes take so much of a guest. */
const ownMiB = 64;

function highestBytes(files: MachineFiles): number {
  const plan = JSON.parse(readFileSync(join(files.shared, shared.plan), "utf8")) as readonly string[];
  const memoryMiB = Number.parseInt(plan[plan.indexOf("-m") + 1] ?? "0", 10);
  return (memoryMiB - ownMiB) * 2 ** 20;
}
