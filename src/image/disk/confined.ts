import { closeSync, openSync } from "node:fs";
import type { Readable } from "node:stream";
import type { Call } from "../../base/call.ts";
import { throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";
import { type Exit, findProgram, run, spawnDetached } from "../../host/process.ts";

/**
 * Programs that look into what a stranger made: as nobody, without network, without privileges to gain, within bounds of
 * memory and time, able to write nothing. They get the file as their standard input, as the way to it is closed to them.
 */

export interface Confined {
  readonly stdout: Readable;
  /** When it has ended and all that it said was read: how, and the end of what it said on stderr. */
  readonly ended: Promise<Exit & { readonly lastWords: string }>;
  kill(): void;
}

export interface Bounds {
  readonly memoryBytes: number;
  /** Of processor time. */
  readonly seconds: number;
}

const nobody = "65534";
const lastWordsLength = 2000;

/** Where a confined program finds its file. */
export const confinedFile = "/proc/self/fd/0";

/** Starts it with `path` to read; cancelling the call kills it. */
export async function startConfined(
  argv: readonly string[],
  path: string,
  bounds: Bounds,
  call: Call,
): Promise<Confined> {
  throwIfCancelled(call);
  const [program = ""] = argv;
  // The programs in front of it would say it too, but in words only; `run` knows which package brings it.
  if (findProgram(program) === undefined) await run([program, "--version"], {}, call);
  const fd = openForReading(path);
  try {
    const started = spawnDetached([...confinement(bounds), ...argv], { stdio: [fd, "pipe", "pipe"] });
    const [, stdout, stderr] = started.pipes as readonly (Readable | null)[];
    if (stdout == null || stderr == null) throw new Fault("bug", "a pipe was asked for");
    let lastWords = "";
    stderr.on("data", (text: Buffer) => (lastWords = (lastWords + text.toString("utf8")).slice(-lastWordsLength)));
    const kill = (): void => {
      try {
        process.kill(started.pid, "SIGKILL");
      } catch {
        // It has ended.
      }
    };
    call.signal.addEventListener("abort", kill, { once: true });
    const closed = new Promise<void>((resolve) => stderr.once("close", resolve));
    const ended = Promise.all([started.exited, closed]).then(([exit]) => {
      call.signal.removeEventListener("abort", kill);
      return { ...exit, lastWords: lastWords.trim() };
    });
    return { stdout, ended, kill };
  } finally {
    closeSync(fd);
  }
}

/** Each of these replaces itself by the next, so the process that is killed is the program itself. */
function confinement({ memoryBytes, seconds }: Bounds): string[] {
  const limits = ["prlimit", `--as=${memoryBytes}`, `--cpu=${seconds}`, "--fsize=0", "--core=0", "--nofile=64"];
  const drop = ["setpriv", "--no-new-privs", "--pdeathsig", "KILL"];
  if (process.getuid?.() !== 0) return [...limits, ...drop, "--"];
  const user = ["--reuid", nobody, "--regid", nobody, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"];
  return ["unshare", "--net", "--ipc", "--", ...limits, ...drop, ...user, "--"];
}

function openForReading(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    throw hostFault(error, `read ${path}`);
  }
}
