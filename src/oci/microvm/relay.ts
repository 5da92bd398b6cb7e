import type { Socket } from "node:net";
import { constants } from "node:os";
import { join } from "node:path";
import { isatty, ReadStream, WriteStream } from "node:tty";
import type { CompanyTask } from "./company.ts";
import { ask, connectAt } from "./control.ts";
import { insideDirectory, shared } from "./contract.ts";
import { pieceOf, PieceReader } from "./piece.ts";

/** What a relay is told, by one variable of its environment. */
export interface RelayTask {
  readonly script: string;
  readonly hostKey: string;
  readonly terminal: boolean;
}

export const taskVariable = "CROFT_OCI_TASK";

/**
 * Stands in the container around QEMU for one program that runs in the guest: passes bytes, signals and the size of its
 * terminal, and ends with its code. What callers watch and signal is this process.
 */
export async function relayProgram(): Promise<number> {
  const { script, hostKey, terminal } = JSON.parse(process.env[taskVariable] ?? "{}") as RelayTask;
  const tty = terminal ? [0, 1, 2].find((fd) => isatty(fd)) : undefined;
  const [cols = 80, rows = 24] = tty === undefined ? [] : new WriteStream(tty).getWindowSize();
  const pty = { cols, rows, term: process.env["TERM"] ?? "xterm" };
  const task: CompanyTask = { script, hostKey, ...(terminal ? { terminal: pty } : {}) };
  const watcher = connectAt(join(insideDirectory, shared.company));
  watcher.on("error", () => watcher.destroy());
  watcher.write(pieceOf("task", JSON.stringify(task)));
  const output = new WriteQueue(1);
  const errors = new WriteQueue(2);
  const reader = new PieceReader();
  let first: Buffer | undefined = Buffer.alloc(0);
  let code: number | undefined;
  for await (const bytes of watcher) {
    for (const piece of reader.take(bytes as Buffer)) {
      if (piece.kind === "error") errors.write(piece.bytes);
      else if (piece.kind === "ended") code ??= Number(piece.bytes.toString("utf8"));
      else if (piece.kind === "failed") {
        errors.write(Buffer.from(`reach the guest: ${piece.bytes.toString("utf8")}\n`));
        code ??= 126;
      } else if (piece.kind === "output" && first === undefined) output.write(piece.bytes);
      else if (piece.kind === "output" && first !== undefined) {
        // Its first line is ours: whether it began, and as which process.
        first = Buffer.concat([first, piece.bytes]);
        const end = first.indexOf(0x0a);
        if (end === -1) continue;
        const said = first.toString("utf8", 0, end).trim();
        output.write(first.subarray(end + 1));
        first = undefined;
        if (said.startsWith("started ")) accompany(watcher, Number(said.slice("started ".length)), tty);
        else {
          const { text, code: found } = refusalOf(said);
          errors.write(Buffer.from(text));
          code = found;
        }
      }
    }
    await Promise.all([output.taken(), errors.taken()]);
  }
  await Promise.all([output.ended(), errors.ended()]);
  return code ?? 128 + constants.signals.SIGKILL;
}

/** `fault program nothing` in the words by which callers tell 127 from 126. */
function refusalOf(said: string): { readonly text: string; readonly code: number } {
  const [, kind, ...words] = said.split(" ");
  const text = words.join(" ");
  if (kind !== "program") return { text: `${text}\n`, code: 126 };
  return { text: `exec: "${text}": executable file not found in $PATH\n`, code: 127 };
}

function accompany(watcher: Socket, pid: number, tty: number | undefined): void {
  passInput(watcher, tty);
  passSignals(join(insideDirectory, shared.control), pid);
  if (tty !== undefined) followSize(watcher, tty);
}

function passInput(watcher: Socket, tty: number | undefined): void {
  if (tty !== undefined) new ReadStream(0).setRawMode(true);
  process.stdin.on("data", (bytes: Buffer) => {
    if (watcher.write(pieceOf("input", bytes))) return;
    process.stdin.pause();
    watcher.once("drain", () => process.stdin.resume());
  });
  const end = (): void => void watcher.write(pieceOf("input-end"));
  process.stdin.on("end", end);
  process.stdin.on("error", end);
}

const passed = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

function passSignals(control: string, pid: number): void {
  for (const signal of passed) {
    // One that has ended is not told so by an error.
    process.on(signal, () => void ask(control, `kill ${constants.signals[signal]} ${pid}`).catch(() => {}));
  }
}

function followSize(watcher: Socket, tty: number): void {
  const terminal = new WriteStream(tty);
  let told = "";
  const look = (): void => {
    const [columns, rows] = terminal.getWindowSize();
    if (`${rows} ${columns}` === told || rows === 0) return;
    told = `${rows} ${columns}`;
    watcher.write(pieceOf("size", told));
  };
  process.on("SIGWINCH", look);
  // Callers set it when they got the terminal, which may be later than our beginning.
  setInterval(look, 300).unref();
}

/** Writes in order, and knows when all of it was taken. */
class WriteQueue {
  readonly #stream: NodeJS.WriteStream;
  #last: Promise<void> = Promise.resolve();

  constructor(fd: 1 | 2) {
    this.#stream = fd === 1 ? process.stdout : process.stderr;
    this.#stream.on("error", () => {});
  }

  write(bytes: Uint8Array): void {
    this.#last = new Promise((resolve) => this.#stream.write(bytes, () => resolve()));
  }

  /** Resolves when not much is waiting any more. */
  async taken(): Promise<void> {
    if (this.#stream.writableNeedDrain) await this.#last;
  }

  ended(): Promise<void> {
    return this.#last;
  }
}
