import type { Readable, Writable } from "node:stream";
import { painter, type Paint } from "./paint.ts";

/** Somewhere to write to: standard output, standard error, or what a test looks at. */
export interface Screen {
  readonly isTerminal: boolean;
  /** Infinity where nobody looks at it. */
  readonly columns: number;
  readonly rows: number;
  readonly color: boolean;
  readonly paint: Paint;
  /** Resolves when there is room for more. */
  write(data: string | Uint8Array): Promise<void>;
}

/** `color` undefined: in a terminal, unless the environment is against it. */
export function screenOf(
  stream: Writable & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number },
  color: boolean | undefined,
  env: Readonly<Record<string, string | undefined>>,
): Screen {
  const isTerminal = stream.isTTY === true;
  // Once for each stream, however many screens are made of it.
  if (stream.listenerCount("error", endQuietly) === 0) stream.on("error", endQuietly);
  const colored = color ?? (isTerminal && (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb");
  return {
    isTerminal,
    color: colored,
    paint: painter(colored),
    get columns() {
      return isTerminal ? (stream.columns ?? 80) : Infinity;
    },
    get rows() {
      return isTerminal ? (stream.rows ?? 24) : Infinity;
    },
    write(data) {
      return new Promise((resolve) => {
        if (stream.writableEnded || stream.destroyed) return resolve();
        stream.write(data, () => resolve());
      });
    },
  };
}

/** A reader that has seen enough, as in `croft logs | head`, is no failure. */
function endQuietly(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
}

/** Where words come from. */
export type Keyboard = Readable & {
  readonly isTTY?: boolean;
  setRawMode?(raw: boolean): unknown;
};

/**
 * Gives every key to the program on the other side, Ctrl-C included, until disposed of. Also when the process ends in
 * the middle: a terminal left raw is of no use to anybody.
 */
export function rawMode(keyboard: Keyboard): Disposable {
  const restore = (): void => void keyboard.setRawMode?.(false);
  keyboard.setRawMode?.(true);
  passOutput(keyboard);
  process.once("exit", restore);
  return {
    [Symbol.dispose]() {
      process.off("exit", restore);
      restore();
    },
  };
}

/**
 * Raw as the runtime means it still turns each line feed of the output into two characters, which the terminal on the other
 * side has done already where it should be done: a program that draws its screen would be off by columns.
 */
function passOutput(keyboard: Keyboard): void {
  if (keyboard.isTTY !== true || keyboard.setRawMode === undefined) return;
  const { spawnSync } = process.getBuiltinModule("node:child_process");
  spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
}
