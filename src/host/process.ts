import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import type { Duplex, Readable, Writable } from "node:stream";
import { type Call, throwIfCancelled, withDeadline } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";

/**
 * The only door to other programs. Argument lists, never a shell; a minimal environment unless more is asked for, so
 * that nothing of the daemon's own (tokens, proxies, NODE_OPTIONS) reaches a program that did not need it.
 */

export interface RunOptions {
  readonly input?: string | Uint8Array;
  /** Added to the minimal environment (`PATH`, `LANG=C.UTF-8`). */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Default 60000. */
  readonly timeoutMs?: number;
  /** Of stdout and stderr each; more is an `exhausted` Fault. Default 8 MiB. */
  readonly maxOutputBytes?: number;
  /** Exit codes that are not a Fault. Default `[0]`. */
  readonly okCodes?: readonly number[];
  /** What this is for, in words, for messages: `format volume shop.db`. Default: the program's name. */
  readonly attempted?: string;
  /**
   * The kernel kills the program when this process ends, in whatever way: for work that writes where our successor will
   * clean up. Costs about two milliseconds: util-linux's `setpriv` sets it, and a shell's test makes sure that this was not
   * too late. Default false.
   */
  readonly endsWithUs?: boolean;
}

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a process ended: exactly one of both is not null. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Streams {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Never rejects. Output may still be buffered in `stdout` and `stderr`. */
  readonly exited: Promise<Exit>;
  /** Signals the process and everything it started, as long as it has not exited; afterwards does nothing. */
  kill(signal: NodeJS.Signals): void;
}

export interface DetachedOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /**
   * One entry for each file descriptor of the program, from 0: nothing, a pipe to us, or a descriptor of ours.
   * Default: nothing for 0, 1 and 2.
   */
  readonly stdio?: readonly ("ignore" | "pipe" | number)[];
}

export interface Detached {
  readonly pid: number;
  /** Our ends, at the same positions as `stdio`; null where it is not `"pipe"`. */
  readonly pipes: readonly (Duplex | Readable | Writable | null)[];
  /** Never rejects. */
  readonly exited: Promise<Exit>;
}

const minimalEnv: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  LANG: "C.UTF-8",
};

/** Which Debian package brings a program; only those whose package is not simply called like the program. */
const packages: Readonly<Record<string, string>> = {
  nft: "nftables",
  ip: "iproute2",
  dnsmasq: "dnsmasq-base",
  busybox: "busybox-static",
  "mkfs.ext4": "e2fsprogs",
  resize2fs: "e2fsprogs",
  e2fsck: "e2fsprogs",
  "mkfs.erofs": "erofs-utils",
  "fsck.erofs": "erofs-utils",
  "qemu-img": "qemu-utils",
  xz: "xz-utils",
  losetup: "mount",
  umount: "mount",
  unshare: "util-linux",
  nsenter: "util-linux",
  blkid: "util-linux",
  cp: "coreutils",
  openssl: "openssl",
};

/**
 * Runs a program to its end and returns what it said.
 *
 * An exit code outside `okCodes`, or death by a signal, is a `failed` Fault whose message ends with the last lines of
 * stderr; `detail.code` or `detail.signal` says which. A program that is not installed is `unsupported`, with the
 * package that brings it as hint. Cancelling the call, and the timeout, kill the program and all it started.
 */
export async function run(argv: readonly string[], options: RunOptions, call: Call): Promise<Finished> {
  const attempted = options.attempted ?? programName(argv);
  throwIfCancelled(call);
  using bounded = withDeadline(call, options.timeoutMs ?? 60_000, attempted);
  const child = start(argv, options, attempted, ["pipe", "pipe", "pipe"]);
  const maxOutputBytes = options.maxOutputBytes ?? 8 * 2 ** 20;
  return await new Promise<Finished>((resolve, reject) => {
    const settle = (action: () => void): void => {
      bounded.signal.removeEventListener("abort", onAbort);
      action();
    };
    const giveUp = (fault: Fault): void => {
      killGroup(child, "SIGKILL");
      // Something that left the group may hold the other ends open; what it writes is not waited for.
      child.stdout?.destroy();
      child.stderr?.destroy();
      settle(() => reject(fault));
    };
    const onAbort = (): void => giveUp(abortFault(bounded.signal, attempted));
    bounded.signal.addEventListener("abort", onAbort, { once: true });
    const tooMuch = (): void =>
      giveUp(new Fault("exhausted", `${attempted}: more than ${maxOutputBytes} bytes of output`));
    const stdout = collect(child.stdout, maxOutputBytes, tooMuch);
    const stderr = collect(child.stderr, maxOutputBytes, tooMuch);
    child.once("error", (error) => settle(() => reject(startFault(error, argv, options.cwd, attempted))));
    child.once("close", (code, signal) =>
      settle(() => {
        const finished = { code: code ?? -1, stdout: stdout(), stderr: stderr() };
        if (code !== null && (options.okCodes ?? [0]).includes(code)) resolve(finished);
        else reject(exitFault({ code, signal }, finished.stderr, attempted));
      }),
    );
    // A program may exit without reading its input; its exit code is the answer, not our broken pipe.
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input ?? "");
  });
}

/**
 * Starts a program whose input and output are followed while it runs. Cancelling the call kills it and all it started;
 * so does `timeoutMs`, which has no default here: an interactive session may last for days.
 */
export function stream(argv: readonly string[], options: Omit<RunOptions, "input">, call: Call): Streams {
  const attempted = options.attempted ?? programName(argv);
  throwIfCancelled(call);
  const child = start(argv, options, attempted, ["pipe", "pipe", "pipe"]);
  const { pid, stdin, stdout, stderr } = child;
  if (pid === undefined || stdin === null || stdout === null || stderr === null) {
    throw missing(child, argv, options.cwd, attempted);
  }
  const onAbort = (): void => killGroup(child, "SIGKILL");
  const cancelTimer = options.timeoutMs === undefined ? undefined : call.clock.after(options.timeoutMs, onAbort);
  call.signal.addEventListener("abort", onAbort, { once: true });
  const exited = exitOf(child).then((exit) => {
    call.signal.removeEventListener("abort", onAbort);
    cancelTimer?.();
    return exit;
  });
  stdin.on("error", () => {});
  return { pid, stdin, stdout, stderr, exited, kill: (signal) => killGroup(child, signal) };
}

/**
 * Starts a program in a session of its own that outlives us: no cancelling, no time limit, and it does not keep this
 * process alive. For monitors, which must survive a restart of the daemon.
 */
export function spawnDetached(argv: readonly string[], options: DetachedOptions): Detached {
  const attempted = programName(argv);
  const child = start(argv, options, attempted, options.stdio ?? ["ignore", "ignore", "ignore"]);
  if (child.pid === undefined) throw missing(child, argv, options.cwd, attempted);
  child.unref();
  return { pid: child.pid, pipes: child.stdio.map((pipe) => pipe ?? null), exited: exitOf(child) };
}

function start(
  argv: readonly string[],
  options: Pick<RunOptions, "env" | "cwd" | "endsWithUs">,
  attempted: string,
  stdio: readonly ("ignore" | "pipe" | number)[],
): ChildProcess {
  const [program, ...args] = options.endsWithUs === true ? endingWith(process.pid, argv) : argv;
  if (program === undefined || argv.length === 0) throw new Fault("bug", "an empty argument list was given to run");
  // setpriv would say it too, but in words only.
  if (options.endsWithUs === true && findProgram(argv[0] ?? "") === undefined) {
    throw notInstalled(programName(argv), undefined);
  }
  try {
    return spawn(program, args, {
      env: { ...minimalEnv, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      stdio: [...stdio],
      // A session of its own makes a process group of its own, which can be killed as a whole.
      detached: true,
    });
  } catch (error) {
    // spawn throws at once for a NUL byte in an argument, for E2BIG and the like.
    throw startFault(error, argv, options.cwd, attempted);
  }
}

/** Follows a stream into memory; the returned function gives its text. Calls `tooMuch` once beyond the limit. */
function collect(stream: Readable | null, limitBytes: number, tooMuch: () => void): () => string {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  stream?.on("data", (chunk: Uint8Array) => {
    sizeBytes += chunk.length;
    if (sizeBytes <= limitBytes) chunks.push(chunk);
    else if (sizeBytes - chunk.length <= limitBytes) tooMuch();
  });
  stream?.on("error", () => {});
  return () => Buffer.concat(chunks).toString("utf8");
}

/**
 * The arguments with which a program is killed when its parent ends. Who is killed before the kernel was told of it is
 * no parent any more when the program would start.
 */
function endingWith(parent: number, argv: readonly string[]): string[] {
  return [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "sh",
    "-c",
    '[ "$PPID" = "$0" ] && exec "$@"',
    String(parent),
    ...argv,
  ];
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  // Once the leader was waited for, its number may belong to someone else.
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    // Between fork and setsid the group does not exist yet, and it is gone when all of it exited.
    if (errnoOf(error) !== "ESRCH") throw hostFault(error, `signal process group ${child.pid}`);
    child.kill(signal);
  }
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }));
    child.on("error", () => {});
  });
}

function abortFault(signal: AbortSignal, attempted: string): Fault {
  const reason: unknown = signal.reason;
  if (reason instanceof Fault) return reason;
  return new Fault("cancelled", `${attempted}: cancelled`, { cause: reason });
}

function exitFault(exit: Exit, stderr: string, attempted: string): Fault {
  const lines = stderr.trim().split("\n").slice(-5).join("\n").slice(-2000);
  const how = exit.signal === null ? `exited with code ${exit.code}` : `was killed by ${exit.signal}`;
  return new Fault("failed", `${attempted}: ${lines === "" ? how : lines}`, {
    detail: exit.signal === null ? { code: String(exit.code) } : { signal: exit.signal },
  });
}

/** A child without pid never started; its `error` event, which says why, comes too late for a caller that must know now. */
function missing(child: ChildProcess, argv: readonly string[], cwd: string | undefined, attempted: string): Fault {
  child.on("error", () => {});
  const path = child.spawnfile;
  if (findProgram(path) === undefined) return notInstalled(programName(argv), undefined);
  if (cwd !== undefined && !existsSync(cwd)) return new Fault("not-found", `${attempted}: ${cwd} does not exist`);
  return new Fault("exhausted", `${attempted}: ${path} could not be started`, {
    hint: "the machine may be out of processes, memory or open files",
  });
}

/** Where a program is that `run` would start under this name; undefined when it is not installed. */
export function findProgram(program: string): string | undefined {
  if (program.includes("/")) return existsSync(program) ? program : undefined;
  const directories = (minimalEnv["PATH"] ?? "").split(":");
  return directories.map((directory) => `${directory}/${program}`).find((path) => existsSync(path));
}

function startFault(error: unknown, argv: readonly string[], cwd: string | undefined, attempted: string): Fault {
  if (errnoOf(error) !== "ENOENT") return hostFault(error, `${attempted}: start ${programName(argv)}`);
  // Node reports a missing working directory in the same words as a missing program.
  if (cwd !== undefined && !existsSync(cwd)) return new Fault("not-found", `${attempted}: ${cwd} does not exist`);
  return notInstalled(programName(argv), error);
}

function notInstalled(program: string, cause: unknown): Fault {
  const name = packages[program] ?? program;
  return new Fault("unsupported", `${program} is not installed`, {
    hint: `install it: apt-get install ${name}`,
    cause,
    detail: { program, package: name },
  });
}

function programName(argv: readonly string[]): string {
  const program = argv[0] ?? "";
  return program.slice(program.lastIndexOf("/") + 1);
}
