import { spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

/** A program to run, with what is added to the environment. */
export interface Command {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs it to its end, returns what it printed, and throws with what it said when its exit code is not 0. */
export function runSync({ argv, env }: Command, input?: string | Uint8Array): string {
  const [program = "", ...args] = argv;
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    env: { ...process.env, ...env },
    maxBuffer: 256 * 2 ** 20,
    ...(input === undefined ? {} : { input }),
  });
  if (status !== 0)
    throw new Error(`${argv.join(" ")} ended with ${status ?? error}:\n${stdout.toString()}${stderr.toString()}`);
  return stdout.toString();
}

/** Milliseconds from starting it to its end, as whoever typed it waits. */
export function timeMs(command: Command): number {
  const startMs = performance.now();
  runSync(command);
  return performance.now() - startMs;
}

/** Runs all of them at once, and resolves when the last has ended. */
export async function runAll(commands: readonly Command[]): Promise<void> {
  await Promise.all(
    commands.map(
      ({ argv, env }) =>
        new Promise<void>((resolve, reject) => {
          const [program = "", ...args] = argv;
          const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"] });
          let said = "";
          child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
          child.once("error", reject);
          // Not "close": what stays behind a detached container may keep the pipe open.
          child.once("exit", (code) => {
            child.stderr.destroy();
            if (code === 0) resolve();
            else reject(new Error(`${argv.join(" ")} ended with ${code}:\n${said}`));
          });
        }),
    ),
  );
}

/** Every process there is in this pid namespace. */
export function processes(): ReadonlySet<number> {
  return new Set(
    readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number),
  );
}

/** Its program's name; empty when it is gone. */
export function programOf(pid: number): string {
  return readProc(pid, "comm").trim();
}

/** Its proportional set size: what it alone uses, and its share of what it has in common with others. */
export function pssKib(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readProc(pid, "smaps_rollup"))?.[1] ?? 0);
}

/** A process and all that descend from it. */
export function withDescendants(root: number): readonly number[] {
  const parents = new Map([...processes()].map((pid) => [pid, parentOf(pid)] as const));
  const family = [root];
  for (const member of family) {
    for (const [pid, parent] of parents) if (parent === member) family.push(pid);
  }
  return family;
}

function parentOf(pid: number): number {
  const stat = readProc(pid, "stat");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] ?? 0);
}

function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return "";
  }
}
