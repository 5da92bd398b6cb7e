import { lstatSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import { isJson, own } from "../config/shape.ts";
import type { Ground } from "../ground.ts";

/**
 * Callers tell from runc's words whether a program was not there or may not be run, and answer 127 or 126; crun has
 * other words. So where the program does not seem to be there, crun runs as a child, and what it says is said again in
 * the words that callers know. Everywhere else there is nothing to say afterwards, and we become crun.
 */

/** Whether the process's program may be missing in `root`. To be wrong costs a process, nothing more. */
export function isSuspect(root: string, process: unknown): boolean {
  const program = programOf(process);
  const cwd = own(process, "cwd");
  if (program.includes("/")) {
    return !isExecutable(root, program.startsWith("/") ? program : join(typeof cwd === "string" ? cwd : "/", program));
  }
  const env = own(process, "env");
  const path = (Array.isArray(env) ? env : []).find((pair) => typeof pair === "string" && pair.startsWith("PATH="));
  const places = typeof path === "string" ? path.slice(5) : "/usr/local/bin:/usr/bin:/bin";
  return !places.split(":").some((place) => isExecutable(root, join("/", place, program)));
}

/** The first word of a process's command line. */
export function programOf(process: unknown): string {
  const args = own(process, "args");
  return Array.isArray(args) ? String(args[0] ?? "") : "";
}

/** The root of a running container as its first process sees it, by the runtime's own record. */
export function rootOfRunning(runtimeRoot: string, id: string): string | undefined {
  try {
    const status: unknown = JSON.parse(readFileSync(join(runtimeRoot, id, "status"), "utf8"));
    const pid = own(status, "pid");
    return isJson(status) && typeof pid === "number" && pid > 0 ? `/proc/${pid}/root` : undefined;
  } catch {
    return undefined;
  }
}

/** Whatever keeps us from seeing it is taken for an absence. */
function isExecutable(root: string, path: string): boolean {
  try {
    return leadsToExecutable(root, path);
  } catch {
    return false;
  }
}

/** Links are followed beneath the root, as the container will follow them. */
function leadsToExecutable(root: string, path: string): boolean {
  let rest = path.split("/");
  let at = "";
  for (let links = 0; rest.length > 0;) {
    const [step = "", ...after] = rest;
    rest = after;
    if (step === "" || step === ".") continue;
    if (step === "..") {
      at = at.slice(0, Math.max(0, at.lastIndexOf("/")));
      continue;
    }
    const facts = lstatSync(`${root}${at}/${step}`, { throwIfNoEntry: false });
    if (facts === undefined) return false;
    if (!facts.isSymbolicLink()) {
      at = `${at}/${step}`;
      if (rest.length === 0) return facts.isFile() && (facts.mode & 0o111) !== 0;
      continue;
    }
    links += 1;
    if (links > 40) return false;
    const target = readlinkSync(`${root}${at}/${step}`);
    if (target.startsWith("/")) at = "";
    rest = [...target.split("/"), ...rest];
  }
  return false;
}

/** Runs crun as a child to its end, and says again what it complains of. Returns its exit code. */
export async function runSuspect(
  { place, handover }: Ground,
  argv: readonly string[],
  program: string,
  keptFds: number,
): Promise<number> {
  const log = join(place.root, `.log-${process.pid}`);
  const [runtime = "", ...args] = argv;
  const quiet = withoutLog(args);
  const { spawn } = process.getBuiltinModule("node:child_process");
  handover.restoreLimits();
  try {
    const code = await new Promise<number>((resolve, reject) => {
      const child = spawn(runtime, [`--log=${log}`, "--log-format=json", ...quiet], {
        stdio: Array.from({ length: 3 + keptFds }, (_, fd) => fd),
      });
      child.once("error", reject);
      child.once("exit", (code) => resolve(code ?? 1));
    });
    const complaint = code === 0 ? undefined : complaintIn(log);
    if (complaint !== undefined) throw new Fault("failed", inKnownWords(complaint, program));
    return code;
  } finally {
    rmSync(log, { force: true });
  }
}

/** Without the options that say where to log: what follows the command is its own, and at last the program's. Exported for its test. */
export function withoutLog(args: readonly string[]): readonly string[] {
  const command = args.findIndex((word) => !word.startsWith("-"));
  return args.filter((word, index) => index >= command || !/^--log(-format)?=/.test(word));
}

function complaintIn(log: string): string | undefined {
  try {
    const lines = readFileSync(log, "utf8").trim().split("\n");
    const messages = lines.flatMap((line) => {
      const message = own(JSON.parse(line), "msg");
      return typeof message === "string" ? [message] : [];
    });
    return messages.at(-1);
  } catch {
    return undefined;
  }
}

/** Exported for its test. */
export function inKnownWords(complaint: string, program: string): string {
  const quoted = `exec: "${program}"`;
  if (/^executable file .* not found in \$PATH/.test(complaint)) {
    return program.includes("/")
      ? `${quoted}: stat ${program}: no such file or directory`
      : `${quoted}: executable file not found in $PATH`;
  }
  if (complaint.startsWith("open executable: ")) return `${quoted}: permission denied`;
  return complaint;
}
