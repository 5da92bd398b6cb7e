import type { Readable } from "node:stream";
import { Bell } from "./bell.ts";

export type Piece = { readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array };

/** Both streams in order of arrival. Not reading slows the program down. */
export async function* merged(stdout: Readable, stderr: Readable): AsyncGenerator<Piece> {
  const bell = new Bell();
  const sources = [
    { stream: "stdout", readable: stdout },
    { stream: "stderr", readable: stderr },
  ] as const;
  for (const { readable } of sources) {
    for (const event of ["readable", "end", "close", "error"]) readable.on(event, () => bell.ring());
  }
  for (;;) {
    for (const { stream, readable } of sources) {
      for (let bytes = readable.read() as Buffer | null; bytes !== null; bytes = readable.read() as Buffer | null) {
        yield { stream, bytes };
      }
    }
    if (sources.every(({ readable }) => readable.readableEnded || readable.destroyed)) return;
    await bell.heard();
  }
}
