import { randomBytes } from "node:crypto";
import { closeSync, fstatSync, rmSync } from "node:fs";
import { join, posix } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import { openBeneath, resolveBeneath } from "../../host/beneath.ts";
import type { Cgroups } from "../../host/cgroup.ts";
import { hostFault } from "../../host/errno.ts";
import { O_PATH } from "../../host/kernel.ts";
import { identifyProcess, type ProcessIdentity, signalProcess } from "../../host/proc.ts";
import { type Exit, stream } from "../../host/process.ts";
import type { ExecSpec, ProgramLaunch, Session } from "../contract.ts";
import { ociCapabilities } from "../monitor/capability.ts";
import { type OciConfig, type OciProcess, ociUser } from "./config.ts";
import type { InstancePaths, Layout } from "../monitor/layout.ts";
import { kernelMounts } from "./mountpoint.ts";
import { lookUpUser } from "./prepare.ts";
import { openPty, setTerminalSize } from "./pty.ts";
import { readRecord, readText, writeRecord } from "../monitor/record.ts";
import type { Runtime } from "../monitor/runtime.ts";
import { shielded } from "../monitor/shield.ts";
import { signalNumber } from "../monitor/signal.ts";
import { merged } from "../monitor/merged.ts";

/** Where a program is started: a running instance. */
export interface ExecPlace {
  readonly id: InstanceId;
  readonly main: ProcessIdentity;
  readonly launch: ProgramLaunch;
  readonly runtime: Runtime;
  readonly layout: Layout;
  readonly cgroups: Cgroups;
}

/** Longer than a timer can count; an exec ends when its program does, or its caller goes. */
const noTimeoutMs = 2 ** 31 - 1;

export async function execIn(place: ExecPlace, spec: ExecSpec, call: Call): Promise<Session> {
  place.cgroups.announceMove();
  const paths = place.layout.of(place.id);
  const config = readRecord(paths.configFile) as OciConfig | undefined;
  if (config === undefined) throw new Fault("precondition", `exec in ${place.id}: it is not running`);
  const program = await describeProcess(place, spec, config.process);
  const files = new ExecFiles(paths);
  // Environment and arguments go by a file that only we can read: a command line is open to everybody.
  writeRecord(files.specFile, program);
  const runtime = await shielded(place.runtime, place.layout);
  const argv = [
    runtime.program,
    ...runtime.globalArgs(place.layout),
    "exec",
    "--process",
    files.specFile,
    "--pid-file",
    files.pidFile,
    place.id,
  ];
  try {
    return spec.terminal === undefined
      ? pipes(argv, runtime.env, files, spec.stdin, call)
      : await terminal(argv, runtime.env, files, spec.terminal, call);
  } catch (error) {
    files.remove();
    throw error;
  }
}

/** The container's own process with what differs. */
async function describeProcess(place: ExecPlace, spec: ExecSpec, base: OciProcess): Promise<OciProcess> {
  // The root as the running container sees it, volumes included.
  const root = `/proc/${place.main.pid}/root`;
  const env = new Map(base.env.map((line) => [line.slice(0, line.indexOf("=")), line] as const));
  const user = spec.user === undefined ? undefined : await lookUpUser(spec.user, root);
  if (user !== undefined) env.set("HOME", `HOME=${user.home}`);
  if (spec.terminal !== undefined && !env.has("TERM")) env.set("TERM", "TERM=xterm");
  for (const [name, value] of Object.entries(spec.env)) env.set(name, `${name}=${value}`);
  const cwd = workdirIn(root, spec.workdir ?? base.cwd);
  const searched = env.get("PATH")?.slice("PATH=".length) ?? "";
  refuseMissing(root, spec.argv[0] ?? "", searched.split(":"), cwd);
  return {
    ...base,
    terminal: spec.terminal !== undefined,
    // From the first moment: otherwise runc sets it when the program may already have asked.
    ...(spec.terminal === undefined
      ? {}
      : { consoleSize: { height: spec.terminal.rows, width: spec.terminal.columns } }),
    args: spec.argv,
    env: [...env.values()],
    cwd,
    ...(user === undefined
      ? {}
      : {
          user: ociUser(user),
          capabilities: ociCapabilities(
            (base.capabilities["bounding"] ?? []).map((name) => name.slice("CAP_".length)),
            place.launch.capabilities.add,
            user.uid === 0,
          ),
        }),
  };
}

/** Never in proc: a runtime that enters `/proc/self/fd/…` stands on the host (CVE-2024-21626). */
function workdirIn(root: string, path: string): string {
  try {
    const resolved = resolveBeneath(root, path);
    const inside = kernelMounts.find((kernel) => resolved === kernel || resolved.startsWith(`${kernel}/`));
    if (inside === undefined) return resolved;
    throw new Fault("hostile", `working directory ${path} lies in ${inside}`, { hint: "choose another one" });
  } catch (error) {
    if (!isFault(error, "not-found")) throw error;
    throw new Fault("invalid", `working directory ${path} does not exist in the instance`, { cause: error });
  }
}

/** Looked up before the runtime does: it can only fail with a text on the program's own stderr. */
function refuseMissing(root: string, program: string, searched: readonly string[], cwd: string): void {
  const candidates = program.includes("/")
    ? [posix.resolve(cwd, program)]
    : searched.map((directory) => posix.resolve(cwd, directory, program));
  if (program !== "" && candidates.some((path) => isExecutable(root, path))) return;
  throw new Fault("not-found", `"${program}" is not a program of the instance`, {
    hint: "see what is there: croft exec … ls /bin /usr/bin",
  });
}

function isExecutable(root: string, path: string): boolean {
  let fd: number | undefined;
  try {
    fd = openBeneath(root, path, O_PATH);
    const facts = fstatSync(fd);
    return facts.isFile() && (facts.mode & 0o111) !== 0;
  } catch (error) {
    const fault = hostFault(error, `look for ${path}`);
    // ENOTDIR and loops of links are as good as nothing there.
    if (["not-found", "failed", "hostile"].includes(fault.reason)) return false;
    throw fault;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** What one exec leaves on tmpfs while it runs. */
class ExecFiles {
  readonly specFile: string;
  readonly pidFile: string;

  constructor(paths: InstancePaths) {
    const name = `exec-${randomBytes(6).toString("hex")}`;
    this.specFile = join(paths.bundleDir, `${name}.json`);
    this.pidFile = join(paths.bundleDir, `${name}.pid`);
  }

  remove(): void {
    rmSync(this.specFile, { force: true });
    rmSync(this.pidFile, { force: true });
  }
}

/** The program itself, not the runtime's process that waits for it. */
class ExecProcess {
  readonly #files: ExecFiles;
  readonly #call: Call;
  #identity: ProcessIdentity | undefined;
  #ended = false;

  constructor(files: ExecFiles, ended: Promise<unknown>, call: Call) {
    this.#files = files;
    this.#call = call;
    void ended.finally(() => {
      this.#ended = true;
      files.remove();
    });
  }

  /** Nothing when it has ended. Waits for its beginning. */
  async signal(name: string): Promise<void> {
    const number = signalNumber(name);
    await this.#once((identity) => {
      signalProcess(identity, number);
      return true;
    });
  }

  /** Sets the size of the program's own terminal: not every runtime hands on that of the one it runs in. */
  async resize(columns: number, rows: number): Promise<void> {
    await this.#once(({ pid }) => setTerminalSize(pid, columns, rows));
  }

  /** Does it as soon as there is a process to do it to, for at most 5 s. */
  async #once(work: (identity: ProcessIdentity) => boolean): Promise<void> {
    for (let tries = 0; !this.#ended && tries < 1000; tries += 1) {
      this.#identity ??= identifyProcess(Number(readText(this.#files.pidFile) || "0"));
      if (this.#identity !== undefined && work(this.#identity)) return;
      await this.#call.clock.sleep(5);
    }
  }
}

/** The runtime ends as its program did; when it was itself killed, that is all there is to know. */
function exitCode(exit: Exit): number {
  return exit.signal === null ? (exit.code ?? 255) : 128 + signalNumber(exit.signal);
}

function pipes(argv: readonly string[], env: Runtime["env"], files: ExecFiles, stdin: boolean, call: Call): Session {
  const child = stream(argv, { env: env ?? {}, timeoutMs: noTimeoutMs, attempted: "exec" }, call);
  const program = new ExecProcess(files, child.exited, call);
  if (!stdin) child.stdin.end();
  return {
    output: merged(child.stdout, child.stderr, { exited: child.exited, clock: call.clock }),
    write: (bytes) =>
      new Promise((resolve, reject) => {
        child.stdin.write(bytes, (error) => (error ? reject(hostFault(error, "write to exec")) : resolve()));
      }),
    endInput: () => void child.stdin.end(),
    resize: () => Promise.reject(new Fault("precondition", "resize exec: it has no terminal")),
    signal: (signal) => program.signal(signal),
    exited: child.exited.then((exit) => exitCode(exit)),
    async close() {
      await program.signal("SIGKILL");
      child.kill("SIGKILL");
    },
  };
}

async function terminal(
  argv: readonly string[],
  env: Runtime["env"],
  files: ExecFiles,
  size: { readonly columns: number; readonly rows: number },
  call: Call,
): Promise<Session> {
  const pty = await openPty(argv, env ?? {}, size, call);
  const program = new ExecProcess(files, pty.exited, call);
  return {
    output: pty.output,
    write: (bytes) => pty.write(bytes),
    // A terminal has no end of input; its line discipline makes one of this character.
    endInput: () => void pty.write(Uint8Array.of(0x04)),
    async resize(columns, rows) {
      pty.resize(columns, rows);
      await program.resize(columns, rows);
    },
    signal: (signal) => program.signal(signal),
    exited: pty.exited,
    async close() {
      await program.signal("SIGKILL");
      pty.kill();
    },
  };
}
