import type * as NodePty from "@lydell/node-pty";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Bell } from "./bell.ts";

/** A program on a terminal of its own, whose other end is ours. */
export interface Pty {
  readonly output: AsyncIterable<{ readonly stream: "stdout"; readonly bytes: Uint8Array }>;
  write(bytes: Uint8Array): Promise<void>;
  resize(columns: number, rows: number): void;
  kill(): void;
  readonly exited: Promise<number>;
}

/** More than this that nobody read makes the program wait. */
const unreadBytes = 256 * 1024;

/** `unsupported` when the optional package for terminals is not there. Cancelling the call kills the program. */
export async function openPty(
  argv: readonly string[],
  size: { readonly columns: number; readonly rows: number },
  call: Call,
): Promise<Pty> {
  const [program = "", ...args] = argv;
  const { spawn } = await loadPackage();
  const pty = spawn(program, args, {
    name: "xterm-256color",
    cols: size.columns,
    rows: size.rows,
    cwd: "/",
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    encoding: null,
  });
  const onAbort = (): void => pty.kill("SIGKILL");
  call.signal.addEventListener("abort", onAbort, { once: true });
  const output = new Output(pty);
  const exited = new Promise<number>((resolve) => {
    pty.onExit(({ exitCode, signal }) => {
      call.signal.removeEventListener("abort", onAbort);
      output.end();
      resolve(signal === undefined || signal === 0 ? exitCode : 128 + signal);
    });
  });
  return {
    output,
    async write(bytes) {
      // Typed as text, but bytes are written as they are.
      pty.write(Buffer.from(bytes) as unknown as string);
    },
    resize: (columns, rows) => pty.resize(columns, rows),
    kill: () => pty.kill("SIGKILL"),
    exited,
  };
}

/** Loaded when the first terminal is asked for: it is a native addon, and most daemons never need it. */
async function loadPackage(): Promise<typeof NodePty> {
  try {
    return await import("@lydell/node-pty");
  } catch (error) {
    throw new Fault("unsupported", "terminals need the package @lydell/node-pty, which is not installed", {
      hint: "install it: npm ci --include=optional",
      cause: error,
    });
  }
}

class Output implements AsyncIterable<{ readonly stream: "stdout"; readonly bytes: Uint8Array }> {
  readonly #pty: NodePty.IPty;
  readonly #bell = new Bell();
  readonly #pieces: Uint8Array[] = [];
  #sizeBytes = 0;
  #ended = false;

  constructor(pty: NodePty.IPty) {
    this.#pty = pty;
    // Typed as text, but bytes with `encoding: null`.
    pty.onData((data) => this.#add(data as unknown as Uint8Array));
  }

  end(): void {
    this.#ended = true;
    this.#bell.ring();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<{ readonly stream: "stdout"; readonly bytes: Uint8Array }> {
    for (;;) {
      for (let bytes = this.#pieces.shift(); bytes !== undefined; bytes = this.#pieces.shift()) {
        this.#sizeBytes -= bytes.length;
        if (this.#sizeBytes < unreadBytes) this.#pty.resume();
        yield { stream: "stdout", bytes };
      }
      if (this.#ended) return;
      await this.#bell.heard();
    }
  }

  #add(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.#sizeBytes += bytes.length;
    if (this.#sizeBytes >= unreadBytes) this.#pty.pause();
    this.#bell.ring();
  }
}
