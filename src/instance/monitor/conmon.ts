import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import { identifyProcess, type ProcessIdentity, signalProcess } from "../../host/proc.ts";
import { type Detached, spawnDetached } from "../../host/process.ts";
import type { InstancePaths, Layout } from "./layout.ts";
import { segmentBytes } from "./log-file.ts";
import { readRecord, writeRecord } from "./record.ts";
import type { Runtime, RuntimeName } from "./runtime.ts";

/**
 * conmon: the process that stays with a container when we do not. It runs the runtime's `create`, holds the other end of
 * the program's output or terminal, writes the log, and leaves the exit code in a file.
 */
export interface MonitorRecord extends ProcessIdentity {
  readonly startedMs: number;
  /** Which runtime made the container; another one does not know it. */
  readonly runtime: RuntimeName;
}

export interface Loaded {
  /** The container's init, which waits to be released, on the host. */
  readonly pid: number;
  readonly monitor: MonitorRecord;
  /** Resolves when conmon has ended, whyever. Never rejects. */
  readonly monitorEnded: Promise<unknown>;
}

/** What the monitor has to know of what it watches over. */
export interface Monitored {
  readonly terminal: boolean;
  /** Keep the main process's input open for whoever attaches. */
  readonly stdin: boolean;
  /** The input outlives whoever is attached to it, as a console does. */
  readonly leaveStdinOpen?: boolean;
  readonly log: { readonly maxBytes: number };
  /** Of ours, which the program finds open as 3 and following. */
  readonly descriptors?: readonly number[];
}

/** Longer than this only a runtime takes that hangs. */
const loadTimeoutMs = 30_000;

/**
 * Starts conmon, which makes the runtime create the container of this OCI configuration. On failure nothing of it runs,
 * but control groups and records may be left: the caller clears them away.
 */
export async function load(
  id: InstanceId,
  launch: Monitored,
  config: object,
  runtime: Runtime,
  layout: Layout,
  call: Call,
): Promise<Loaded> {
  const paths = layout.of(id);
  rmSync(paths.bundleDir, { recursive: true, force: true });
  for (const directory of [layout.exitDir, layout.stateDir, layout.socketDir, paths.bundleDir, paths.logDir]) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }
  writeRecord(paths.configFile, config);
  const startedMs = call.clock.nowMs();
  const descriptors = launch.descriptors ?? [];
  const conmon = spawnDetached(conmonArgv(id, launch, runtime, layout, paths), {
    // Without a locale it keeps less memory, which counts for a process that every container has.
    // It notes an OOM kill in a file where it stands.
    cwd: paths.bundleDir,
    env: {
      _OCI_SYNCPIPE: String(3 + descriptors.length),
      _OCI_STARTPIPE: String(4 + descriptors.length),
      LANG: "C",
      ...runtime.env,
      // How a service manager hands over sockets: conmon and both runtimes pass these descriptors on, whatever they are.
      ...(descriptors.length === 0 ? {} : { LISTEN_FDS: String(descriptors.length), LISTEN_PID: String(process.pid) }),
    },
    stdio: ["ignore", "ignore", "ignore", ...descriptors, "pipe", "pipe"],
  });
  const identity = identifyProcess(conmon.pid) ?? { pid: conmon.pid, startTicks: 0 };
  const monitor = { ...identity, startedMs, runtime: runtime.name };
  try {
    // Before conmon goes on: whatever happens from now on, somebody knows of it.
    writeRecord(paths.monitorFile, monitor);
    const pid = await created(id, conmon, call);
    return { pid, monitor, monitorEnded: conmon.exited };
  } catch (error) {
    // The runtime is a child of conmon and told by the kernel to die with it.
    signalProcess(monitor, "SIGKILL");
    await conmon.exited;
    throw error;
  }
}

function conmonArgv(
  id: InstanceId,
  launch: Monitored,
  runtime: Runtime,
  layout: Layout,
  paths: InstancePaths,
): string[] {
  const options: Readonly<Record<string, string>> = {
    "--api-version": "1",
    "--log-level": "error",
    "--cid": id,
    "--cuuid": paths.socketName,
    "--name": id,
    "--runtime": runtime.program,
    "--bundle": paths.bundleDir,
    "--container-pidfile": paths.pidFile,
    "--exit-dir": layout.exitDir,
    "--socket-dir-path": layout.socketDir,
    "--log-path": `k8s-file:${join(paths.logDir, "log")}`,
    "--log-size-max": String(segmentBytes(launch.log.maxBytes)),
  };
  return [
    "conmon",
    // A child of ours, so that we hear at once when it is killed; and no sync(2) of the log's disk at every exit.
    "--sync",
    "--no-sync-log",
    ...(launch.descriptors === undefined || launch.descriptors.length === 0 ? [] : ["--replace-listen-pid"]),
    ...Object.entries(options).flat(),
    ...runtime.globalArgs(layout).flatMap((argument) => ["--runtime-arg", argument]),
    // A terminal outlives whoever is attached to it; a pipe ends with its writer, or no `cat` would ever end.
    ...(launch.terminal ? ["--terminal", "--leave-stdin-open"] : []),
    ...(launch.stdin ? ["--stdin"] : []),
    ...(launch.leaveStdinOpen === true ? ["--leave-stdin-open"] : []),
  ];
}

/** Lets conmon begin and waits for what it says about the runtime's `create`: a pid, or -1 and the runtime's words. */
async function created(id: InstanceId, conmon: Detached, call: Call): Promise<number> {
  const [sync, start] = conmon.pipes.slice(-2) as [Readable, Writable];
  using bounded = withDeadline(call, loadTimeoutMs, `start ${id}`);
  const onAbort = (): void => void sync.destroy(bounded.signal.reason as Error);
  bounded.signal.addEventListener("abort", onAbort, { once: true });
  start.on("error", () => {});
  start.end("\0");
  let text = "";
  try {
    for await (const chunk of sync) {
      text += String(chunk);
      if (text.includes("\n")) break;
    }
  } catch (error) {
    throw Fault.from(error, `start ${id}`);
  } finally {
    bounded.signal.removeEventListener("abort", onAbort);
  }
  if (!text.includes("\n")) throw new Fault("failed", `start ${id}: its monitor was killed`);
  const answer = JSON.parse(text) as { readonly data?: number; readonly pid?: number; readonly message?: string };
  const pid = answer.data ?? answer.pid ?? -1;
  if (pid <= 0) throw runtimeFault(id, answer.message ?? "the runtime did not say why");
  return pid;
}

/** What a runtime says when it cannot: its own words, as the reason that fits. */
function runtimeFault(id: InstanceId, message: string): Fault {
  const text = message.trim().split("\n").at(-1) ?? "";
  if (/executable|no such file or directory|not found in \$PATH/i.test(text)) {
    return new Fault("invalid", `its program cannot be started: ${text}`, {
      hint: "the program must be in the image, and executable",
    });
  }
  return new Fault("failed", `start ${id}: ${text}`);
}

/** Who watches over the last run, or did: undefined before the first one. */
export function readMonitor(paths: InstancePaths): MonitorRecord | undefined {
  return readRecord(paths.monitorFile) as MonitorRecord | undefined;
}
