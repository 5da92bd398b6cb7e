import {
  appendFileSync,
  closeSync,
  fstatSync,
  linkSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  watch,
} from "node:fs";
import { join } from "node:path";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import type { LogLine, LogRange } from "../contract.ts";
import { Bell } from "./bell.ts";
import { type LogEntry, LineReader, maxLineBytes, parseEntry, type PlacedLine } from "./log-line.ts";

/**
 * The log of an instance: `log`, which conmon writes, and `log.1`, the part before it.
 *
 * When `log` grows too large conmon begins a new file in its place and the old one is lost, unless it has another name:
 * `log.kept` is a hard link to the file that was `log` when it was last looked at. So conmon alone keeps the bound, also
 * while the daemon is away, and a look from time to time keeps the history.
 */

/** How large one file of a log may grow, for a log of so many bytes: with what restarts add, two files keep the bound. */
export function segmentBytes(maxBytes: number): number {
  return Math.max(4096, Math.floor(maxBytes / 3));
}

const current = "log";
const kept = "log.kept";
const previous = "log.1";

/** Notices that conmon began a new file, and keeps the one before. Cheap; call it now and then. */
export function keepLog(directory: string): void {
  const now = inodeOf(join(directory, current));
  const before = inodeOf(join(directory, kept));
  if (now === undefined || now === before) return;
  if (before !== undefined) renameSync(join(directory, kept), join(directory, previous));
  try {
    linkSync(join(directory, current), join(directory, kept));
  } catch (error) {
    // conmon is putting a new file in its place this very moment; the next look finds it.
    if (!["ENOENT", "EEXIST"].includes(errnoOf(error) ?? "")) throw hostFault(error, `keep the log in ${directory}`);
  }
}

/** Before a start: conmon counts only what it writes itself, so what is there must be small. */
export function rotateLog(directory: string, maxBytes: number): void {
  keepLog(directory);
  const sizeBytes = sizeOf(join(directory, current));
  if (sizeBytes === undefined || sizeBytes * 2 < segmentBytes(maxBytes)) return;
  renameSync(join(directory, current), join(directory, previous));
  rmSync(join(directory, kept), { force: true });
}

/** A line of ours in the log of an instance that does not run, as conmon would write it. */
export function appendLog(directory: string, text: string, call: Call): void {
  const time = new Date(call.clock.nowMs()).toISOString().replace("Z", "000000+00:00");
  appendFileSync(join(directory, current), `${time} stderr F ${text.replaceAll("\n", " ")}\n`, { mode: 0o600 });
}

/**
 * The lines of a log. With `follow` it waits for more until `ended` says that no more can come; `woken` is called with a
 * function that makes it look again (when the instance exits).
 */
export async function* readLog(
  directory: string,
  range: LogRange,
  ended: () => boolean,
  woken: (look: () => void) => () => void,
  call: Call,
): AsyncGenerator<LogLine> {
  const wanted = (line: LogLine): boolean => range.sinceMs === undefined || line.timeMs >= range.sinceMs;
  const segments = openSegments(directory);
  let followed: Segment | undefined;
  try {
    const firstLine = range.tail === undefined ? undefined : placeOfTail(segments, range.tail);
    for (const [index, segment] of segments.entries()) {
      const isLast = index === segments.length - 1;
      if (firstLine !== undefined && index < firstLine.index) continue;
      const from = firstLine?.index === index ? firstLine : { offset: 0, readFrom: 0 };
      segment.reader = new LineReader(from.readFrom);
      segment.position = from.readFrom;
      for (const line of readOn(segment)) {
        if (line.offset >= from.offset && wanted(line)) yield plain(line);
        throwIfCancelled(call);
      }
      if (!isLast || !range.follow) for (const line of segment.reader.flush()) if (wanted(line)) yield plain(line);
    }
    if (!range.follow) return;
    followed = segments.pop();
    yield* follow(directory, followed, wanted, ended, woken, call);
  } finally {
    for (const segment of segments) closeSync(segment.fd);
  }
}

interface Segment {
  readonly fd: number;
  readonly inode: bigint;
  position: number;
  reader: LineReader;
}

async function* follow(
  directory: string,
  begun: Segment | undefined,
  wanted: (line: LogLine) => boolean,
  ended: () => boolean,
  woken: (look: () => void) => () => void,
  call: Call,
): AsyncGenerator<LogLine> {
  let segment = begun;
  const bell = new Bell();
  const ring = (): void => bell.ring();
  const watcher = watch(directory, ring);
  watcher.on("error", ring);
  const stopWaking = woken(ring);
  call.signal.addEventListener("abort", ring, { once: true });
  try {
    for (;;) {
      // Asked before reading: what was written before the end is read after it.
      const last = ended();
      segment ??= openSegment(join(directory, current));
      if (segment !== undefined) {
        for (const line of readOn(segment)) if (wanted(line)) yield plain(line);
        if (segment.inode !== inodeOf(join(directory, current)) && inodeOf(join(directory, current)) !== undefined) {
          // conmon began a new file after our last read: the old one is complete now.
          for (const line of readOn(segment)) if (wanted(line)) yield plain(line);
          for (const line of segment.reader.flush()) if (wanted(line)) yield plain(line);
          closeSync(segment.fd);
          segment = undefined;
          continue;
        }
        for (const line of segment.reader.flush()) if (wanted(line)) yield plain(line);
      }
      if (last) return;
      throwIfCancelled(call);
      await bell.heard();
      throwIfCancelled(call);
    }
  } finally {
    call.signal.removeEventListener("abort", ring);
    stopWaking();
    watcher.close();
    if (segment !== undefined) closeSync(segment.fd);
  }
}

/** The files of a log, oldest first. A kept one that is no longer `log` is one more that `keepLog` has not seen. */
function openSegments(directory: string): Segment[] {
  const found = [previous, kept, current].map((name) => openSegment(join(directory, name)));
  const segments: Segment[] = [];
  for (const segment of found) {
    if (segment === undefined) continue;
    if (segments.at(-1)?.inode === segment.inode) closeSync(segment.fd);
    else segments.push(segment);
  }
  return segments;
}

function openSegment(path: string): Segment | undefined {
  try {
    const fd = openSync(path, "r");
    return { fd, inode: fstatSync(fd, { bigint: true }).ino, position: 0, reader: new LineReader() };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw hostFault(error, `open the log ${path}`);
  }
}

const chunkBytes = 64 * 1024;

function* readOn(segment: Segment): Generator<PlacedLine> {
  const chunk = Buffer.allocUnsafe(chunkBytes);
  for (;;) {
    const length = readSync(segment.fd, chunk, 0, chunkBytes, segment.position);
    if (length === 0) return;
    segment.position += length;
    yield* segment.reader.take(chunk.subarray(0, length));
  }
}

/**
 * Where the last `count` lines begin: the file, the offset of the first entry that completes one of them, and where to
 * start reading so that the pieces of that line are read, too. Reads backwards, and no more than it must.
 */
function placeOfTail(
  segments: readonly Segment[],
  count: number,
): { readonly index: number; readonly offset: number; readonly readFrom: number } {
  if (count === 0) return { index: segments.length - 1, offset: Infinity, readFrom: sizeOfLast(segments) };
  let missing = count;
  for (let index = segments.length - 1; index >= 0; index -= 1) {
    const segment = segments[index];
    if (segment === undefined) break;
    const endings = endingsBackwards(segment.fd, index === segments.length - 1);
    for (const offset of endings) {
      missing -= 1;
      if (missing === 0)
        return { index, offset, readFrom: lineStart(segment.fd, Math.max(0, offset - 2 * maxLineBytes)) };
    }
  }
  return { index: 0, offset: 0, readFrom: 0 };
}

function sizeOfLast(segments: readonly Segment[]): number {
  const last = segments.at(-1);
  return last === undefined ? 0 : lineStart(last.fd, fstatSync(last.fd).size);
}

/** Offsets of the entries that end a line, last one first. At the end of the log an open line counts as one, too. */
function* endingsBackwards(fd: number, isLast: boolean): Generator<number> {
  const seen = new Set<string>();
  for (const { entry, offset } of entriesBackwards(fd)) {
    if (entry.whole || (isLast && !seen.has(entry.stream))) yield offset;
    seen.add(entry.stream);
  }
}

function* entriesBackwards(fd: number): Generator<{ readonly entry: LogEntry; readonly offset: number }> {
  let position = fstatSync(fd).size;
  let rest: Buffer = Buffer.alloc(0);
  let first = true;
  while (position > 0) {
    const length = Math.min(chunkBytes, position);
    position -= length;
    const chunk = Buffer.allocUnsafe(length);
    readSync(fd, chunk, 0, length, position);
    const data: Buffer = Buffer.concat([chunk, rest]);
    let end = data.length;
    for (
      let at = data.lastIndexOf(0x0a, end - 1);
      at !== -1 && end > 0;
      at = end > 0 ? data.lastIndexOf(0x0a, end - 1) : -1
    ) {
      // What follows the last newline of the file is torn: conmon is writing it.
      if (!first) {
        const entry = parseEntry(data.subarray(at + 1, end));
        if (entry !== undefined) yield { entry, offset: position + at + 1 };
      }
      first = false;
      end = at;
    }
    rest = data.subarray(0, end);
  }
  const entry = first ? undefined : parseEntry(rest);
  if (entry !== undefined) yield { entry, offset: 0 };
}

/** The beginning of the line after the first newline at or after `offset - 1`; the file's end when there is none. */
function lineStart(fd: number, offset: number): number {
  if (offset === 0) return 0;
  const chunk = Buffer.allocUnsafe(chunkBytes);
  for (let position = offset - 1; ; position += chunkBytes) {
    const length = readSync(fd, chunk, 0, chunkBytes, position);
    const at = chunk.subarray(0, length).indexOf(0x0a);
    if (at !== -1) return position + at + 1;
    if (length < chunkBytes) return position + length;
  }
}

function plain({ timeMs, stream, bytes, partial }: PlacedLine): LogLine {
  return { timeMs, stream, bytes, partial };
}

function inodeOf(path: string): bigint | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}

function sizeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.size;
}
