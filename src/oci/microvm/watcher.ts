import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, fstatSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isatty, WriteStream } from "node:tty";
import { keepCompany } from "./company.ts";
import { ask } from "./control.ts";
import { insideDirectory, shared } from "./contract.ts";
import { exitCodeIn } from "./exit-code.ts";

/**
 * The first process of the container around QEMU: runs it, tells the guest how large the terminal is, and ends with the
 * code that the guest's program ended with. `start` wrote the command line before it let us go.
 */
export async function watchMachine(): Promise<number> {
  const [program = "", ...args] = JSON.parse(readFileSync(at(shared.plan), "utf8")) as readonly string[];
  const streams = [1, 2].map((fd) => streamFor(fd, at(`stream${fd}`)));
  const machine = spawn(program, args, { stdio: [0, ...streams.map(({ fd }) => fd)] });
  for (const stream of streams) stream.close();
  // What a caller sends by the runtime reaches the program in the guest; what comes here directly ends the machine.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const)
    process.on(signal, () => machine.kill("SIGKILL"));
  const stopFollowing = followSize();
  keepCompany();
  const ended = await new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    machine.once("error", () => resolve({ code: 127, signal: null }));
    machine.once("exit", (code, signal) => resolve({ code, signal }));
  });
  stopFollowing();
  await Promise.all(streams.map(({ drained }) => drained));
  if (ended.code === 127) return ended.code;
  return exitCodeIn(insideDirectory);
}

interface Stream {
  /** What QEMU is given. */
  readonly fd: number;
  close(): void;
  /** Resolves when all that was written has arrived. */
  readonly drained: Promise<void>;
}

/**
 * QEMU opens its output by a path, which a pipe and a terminal allow. A socket cannot be opened so, and a file would be
 * written from another position than by others who have it: to these it comes by a pipe with a name.
 */
function streamFor(fd: number, path: string): Stream {
  if (isatty(fd) || fstatSync(fd).isFIFO() || fstatSync(fd).isCharacterDevice()) {
    return { fd, close: () => {}, drained: Promise.resolve() };
  }
  rmSync(path, { force: true });
  spawnSync("/usr/bin/mkfifo", ["-m", "600", path]);
  const reader = spawn("/usr/bin/cat", [path], { stdio: ["ignore", fd, "ignore"] });
  const drained = new Promise<void>((resolve) => reader.once("exit", () => resolve()));
  // Waits for the reader, which is on its way.
  const writer = openSync(path, "w");
  return { fd: writer, close: () => closeSync(writer), drained };
}

/** A file in the directory that we share with the host. */
function at(name: string): string {
  return join(insideDirectory, name);
}

function followSize(): () => void {
  const fd = [0, 1, 2].find((fd) => isatty(fd));
  if (fd === undefined) return () => {};
  const terminal = new WriteStream(fd);
  let told = "";
  let telling = false;
  const tell = async (): Promise<void> => {
    // The guest hears nobody else while it is told what to run.
    if (telling || !existsSync(at(shared.started))) return;
    const [columns, rows] = terminal.getWindowSize();
    const size = `${rows} ${columns}`;
    if (size === told || rows === 0) return;
    telling = true;
    try {
      if ((await ask(at(shared.control), `size ${size}`))[0] === "ok") told = size;
    } catch {
      // Asked again in a while.
    } finally {
      telling = false;
    }
  };
  const look = (): void => void tell();
  process.on("SIGWINCH", look);
  const timer = setInterval(look, 300);
  return () => clearInterval(timer);
}
