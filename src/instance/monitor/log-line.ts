import type { LogLine } from "../contract.ts";

/**
 * conmon's log: `2026-11-21T03:16:38.369654321+00:00 stdout F text`, one entry a line. `P` in the place of `F` means
 * that the program had not ended its line yet: what follows belongs to it.
 */
export interface LogEntry {
  readonly timeMs: number;
  readonly stream: "stdout" | "stderr";
  readonly whole: boolean;
  readonly bytes: Uint8Array;
}

/** A program that never ends its line is shown in pieces of this size. */
export const maxLineBytes = 256 * 1024;

const newline = 0x0a;

/** The entry in a line without its newline; undefined for one that is torn, as after a power cut. */
export function parseEntry(line: Uint8Array): LogEntry | undefined {
  const text = Buffer.from(line.buffer, line.byteOffset, line.byteLength);
  // The time has a fixed form of at most 35 characters; everything before the third space is plain ASCII.
  const head = text.toString("latin1", 0, Math.min(text.length, 48));
  const match = /^(\S{20,35}) (stdout|stderr) ([FP])(?: |$)/.exec(head);
  const timeMs = Date.parse(match?.[1] ?? "");
  if (match === null || Number.isNaN(timeMs)) return undefined;
  const stream = match[2] === "stderr" ? "stderr" : "stdout";
  return { timeMs, stream, whole: match[3] === "F", bytes: text.subarray(match[0].length) };
}

/** A line, and where in the log the entry that completed it begins. */
export interface PlacedLine extends LogLine {
  readonly offset: number;
}

/** Makes lines of bytes that come in pieces of any size. */
export class LineReader {
  readonly #open = new Map<
    LogEntry["stream"],
    { timeMs: number; offset: number; sizeBytes: number; parts: Uint8Array[] }
  >();
  #rest: Uint8Array = new Uint8Array();
  #offset: number;

  /** `offset`: where in the log the first byte that comes is. */
  constructor(offset = 0) {
    this.#offset = offset;
  }

  /** The lines that are complete with these bytes. */
  take(bytes: Uint8Array): PlacedLine[] {
    const data = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const lines: PlacedLine[] = [];
    let start = 0;
    for (let end = data.indexOf(newline); end !== -1; end = data.indexOf(newline, start)) {
      const entry = parseEntry(data.subarray(start, end));
      if (entry !== undefined) this.#add(entry, this.#offset + start, lines);
      start = end + 1;
    }
    // A copy: the caller may use its buffer again.
    this.#rest = Uint8Array.from(data.subarray(start));
    this.#offset += start;
    return lines;
  }

  /** What has no line end yet, in order of time: a prompt that waits for an answer. What follows is another line. */
  flush(): PlacedLine[] {
    const lines = [...this.#open].map(([stream, { timeMs, offset, parts }]) => {
      return { timeMs, offset, stream, bytes: Buffer.concat(parts), partial: true };
    });
    this.#open.clear();
    return lines.sort((left, right) => left.offset - right.offset);
  }

  #add(entry: LogEntry, offset: number, lines: PlacedLine[]): void {
    const before = this.#open.get(entry.stream);
    const parts = [...(before?.parts ?? []), Uint8Array.from(entry.bytes)];
    const sizeBytes = (before?.sizeBytes ?? 0) + entry.bytes.length;
    const timeMs = before?.timeMs ?? entry.timeMs;
    if (!entry.whole && sizeBytes < maxLineBytes) {
      this.#open.set(entry.stream, { timeMs, offset, sizeBytes, parts });
      return;
    }
    this.#open.delete(entry.stream);
    lines.push({ timeMs, offset, stream: entry.stream, bytes: Buffer.concat(parts), partial: !entry.whole });
  }
}
