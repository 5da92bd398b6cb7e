import type { Readable } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "../../base/call.ts";
import { Bell } from "./bell.ts";

export type Piece = { readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array };

/** How long nothing comes from a program that has ended until its output is taken for over. */
const quietMs = 500;

/**
 * Both streams in order of arrival. Not reading slows the program down. With `program`, whatever it started and left
 * behind does not keep them open: they end with it, when all that it wrote was read.
 */
export async function* merged(
  stdout: Readable,
  stderr: Readable,
  program?: { readonly exited: Promise<unknown>; readonly clock: Clock },
): AsyncGenerator<Piece> {
  const bell = new Bell();
  const sources = [
    { stream: "stdout", readable: stdout },
    { stream: "stderr", readable: stderr },
  ] as const;
  for (const { readable } of sources) {
    for (const event of ["readable", "end", "close", "error"]) readable.on(event, () => bell.ring());
  }
  let hasExited = false;
  const noteExit = (): void => {
    hasExited = true;
    bell.ring();
  };
  program?.exited.then(noteExit, noteExit);
  for (;;) {
    for (const { stream, readable } of sources) {
      for (let bytes = readable.read() as Buffer | null; bytes !== null; bytes = readable.read() as Buffer | null) {
        yield { stream, bytes };
      }
    }
    if (sources.every(({ readable }) => readable.readableEnded || readable.destroyed)) return;
    if (program === undefined || !hasExited) await bell.heard();
    else if (!(await bell.heardWithin(quietMs, program.clock))) {
      // We may have been busy for all that time: what came meanwhile is taken in first.
      await nextTurn();
      if (sources.some(({ readable }) => readable.readableLength > 0)) continue;
      for (const { readable } of sources) readable.destroy();
      return;
    }
  }
}
