import { closeSync, constants, fstatSync, openSync } from "node:fs";
import type * as NodePty from "@lydell/node-pty";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import { ioctl, O_CLOEXEC, O_PATH } from "../../host/kernel.ts";
import { Bell } from "../monitor/bell.ts";

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
  env: Readonly<Record<string, string>>,
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
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", ...env },
    encoding: null,
  });
  // The runtime makes it raw too, but later: a key, or the end of input, that came before would be taken by this
  // terminal instead of the program's, and the end of input would reach the program as a zero byte.
  makeRaw((pty as unknown as { readonly fd: number }).fd);
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

/** ioctl(2): read and set the modes of a terminal. */
const TCGETS = 0x5401;
const TCSETS = 0x5402;

/** As cfmakeraw(3): bytes pass as they are, both ways. Both ends of a terminal share its modes. */
function makeRaw(terminal: number): void {
  // struct termios of the kernel: input, output, control and local modes, then control characters; 36 bytes.
  const modes = new Uint32Array(9);
  const bytes = new Uint8Array(modes.buffer);
  ioctl(terminal, TCGETS, bytes);
  const [input = 0, output = 0, , local = 0] = modes;
  // IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON; OPOST; ISIG ICANON ECHO ECHONL IEXTEN.
  modes[0] = input & ~0o2753;
  modes[1] = output & ~0o1;
  modes[3] = local & ~0o100113;
  ioctl(terminal, TCSETS, bytes);
}

/** ioctl(2): set the size of a terminal. */
const TIOCSWINSZ = 0x5414;

/** Sets the size of the terminal that is the process's stdin; false when that is none, or the process is gone. */
export function setTerminalSize(pid: number, columns: number, rows: number): boolean {
  const descriptors: number[] = [];
  try {
    // Only looked at before it is known to be the end of a terminal: a workload may put anything there.
    const found = openSync(`/proc/${pid}/fd/0`, O_PATH | O_CLOEXEC);
    descriptors.push(found);
    const facts = fstatSync(found);
    const major = (facts.rdev >> 8) & 0xfff;
    if (!facts.isCharacterDevice() || major < 136 || major > 143) return false;
    const flags = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK | O_CLOEXEC;
    const terminal = openSync(`/proc/self/fd/${found}`, flags);
    descriptors.push(terminal);
    ioctl(terminal, TIOCSWINSZ, new Uint8Array(new Uint16Array([rows, columns, 0, 0]).buffer));
    return true;
  } catch (error) {
    if (["ENOENT", "ESRCH", "EIO"].includes(errnoOf(error) ?? "")) return false;
    throw hostFault(error, `resize the terminal of process ${pid}`);
  } finally {
    for (const fd of descriptors) closeSync(fd);
  }
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
