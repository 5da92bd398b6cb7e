import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { isatty, WriteStream } from "node:tty";
import { ask } from "./control.ts";
import { insideDirectory, shared } from "./contract.ts";

/**
 * The first process of the container around QEMU: runs it, tells the guest how large the terminal is, and ends with the
 * code that the guest's program ended with. `start` wrote the command line before it let us go.
 */
export async function watchMachine(): Promise<number> {
  const at = (name: string): string => join(insideDirectory, name);
  const [program = "", ...args] = JSON.parse(readFileSync(at(shared.plan), "utf8")) as readonly string[];
  const machine = spawn(program, args, { stdio: "inherit" });
  // What a caller sends by the runtime reaches the program in the guest; what comes here directly ends the machine.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const)
    process.on(signal, () => machine.kill("SIGKILL"));
  const stopFollowing = followSize(at);
  const ended = await new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    machine.once("error", () => resolve({ code: 127, signal: null }));
    machine.once("exit", (code, signal) => resolve({ code, signal }));
  });
  stopFollowing();
  return codeIn(at(shared.exit)) ?? 128 + constants.signals[ended.signal === null ? "SIGKILL" : "SIGKILL"];
}

/** What the guest wrote last: the program's code, and how often memory ran out. */
function codeIn(path: string): number | undefined {
  try {
    const [code] = readFileSync(path, "utf8").trim().split(" ");
    return code !== undefined && /^\d{1,3}$/.test(code) ? Number(code) : undefined;
  } catch {
    return undefined;
  }
}

function followSize(at: (name: string) => string): () => void {
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
