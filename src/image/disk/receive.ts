import { createReadStream, statSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { formatSize } from "../../base/unit.ts";
import { hostFault } from "../../host/errno.ts";
import { removeTree } from "../../host/file.ts";
import { openHttpBlob } from "../layer/http-blob.ts";
import { refuseWithoutRoom } from "../room.ts";
import type { DiskSource, SmallFile } from "./contract.ts";
import type { DiskImageLimits } from "./limit.ts";
import { SparseWriter } from "./sparse-writer.ts";

const pieceBytes = 1 << 20;
const maxSmallFileBytes = 1 << 20;
const noHeaders = { headers: () => Promise.resolve({}) };

export interface Receiving {
  readonly source: DiskSource;
  /** A checksum will tell whether what came is right: it may go on where it stopped, and come without TLS. */
  readonly isChecked: boolean;
  readonly limits: DiskImageLimits;
  readonly onProgress: (doneBytes: number, totalBytes: number | undefined) => void;
}

/**
 * Brings the bytes as they are to the file at `path`. What is there already is the beginning of a download that was
 * interrupted, and stays when this one is; everything else is begun anew.
 */
export async function receive(path: string, receiving: Receiving, call: Call): Promise<number> {
  const { source, isChecked, limits, onProgress } = receiving;
  const goesOn = source.kind === "url" && isChecked && isThere(path);
  if (!goesOn) await removeTree(path);
  await using writer = await SparseWriter.open(path, goesOn ? "append" : "new");
  // A server refuses to send nothing, which is what is left of a part that is complete.
  writer.sizeBytes = Math.max(0, writer.sizeBytes - 1);
  let total = sizeOf(source);
  const setTotal = (sizeBytes: number): void => {
    total = sizeBytes;
    refuseSize(sizeBytes, limits);
  };
  if (total !== undefined) setTotal(total);
  if (total !== undefined) refuseWithoutRoom(dirname(path), total - writer.sizeBytes, "the image");
  let isRoomKnown = total !== undefined;
  try {
    for await (const chunk of openSource(source, writer.sizeBytes, isChecked, setTotal, call)) {
      throwIfCancelled(call);
      if (!isRoomKnown && total !== undefined) {
        refuseWithoutRoom(dirname(path), total - writer.sizeBytes, "the image");
      }
      isRoomKnown = true;
      refuseSize(writer.sizeBytes + chunk.length, limits);
      await writer.write(chunk);
      onProgress(writer.sizeBytes, total);
    }
  } finally {
    // Also of a part: where it ends is where the next attempt goes on.
    await writer.finish().catch(ifCannotFinish);
  }
  if (total !== undefined && source.kind !== "url" && writer.sizeBytes !== total) {
    throw new Fault("corrupt", `the image has ${writer.sizeBytes} bytes where ${total} were said`);
  }
  return writer.sizeBytes;
}

/** A list of checksums or a signature, whole. */
export async function receiveSmall(file: SmallFile, what: string, call: Call): Promise<Buffer> {
  if (file.kind === "bytes") return Buffer.from(file.bytes);
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  const source = { kind: "http", url: addressOf(file.url).href, ...noHeaders } as const;
  for await (const chunk of openHttpBlob(source, call, { follow: anywhere(false) })) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxSmallFileBytes)
      throw new Fault("exhausted", `${what} has more than a MiB: is it the right file?`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** What the image is called where it comes from. */
export function filenameOf(source: DiskSource): string {
  if (source.kind === "bytes") return basename(source.filename);
  if (source.kind === "file") return basename(source.path);
  const last = addressOf(source.url).pathname.split("/").at(-1) ?? "";
  try {
    return basename(decodeURIComponent(last));
  } catch {
    return last;
  }
}

/** For people; a URL may carry a password, or a ticket in its query. */
export function originOf(source: DiskSource): string {
  if (source.kind !== "url") return filenameOf(source);
  const { origin, pathname } = addressOf(source.url);
  return `${origin}${pathname}`;
}

export function addressOf(text: string): URL {
  const url = URL.parse(text);
  if (url !== null && ["http:", "https:"].includes(url.protocol)) return url;
  throw new Fault("invalid", `"${text}" is not an address of the web`, { hint: "write it as https://…" });
}

/** Deletes parts of downloads that nobody came back for. */
export async function removeOldParts(directory: string, beforeMs: number): Promise<number> {
  let freedBytes = 0;
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const { mtimeMs, blocks } = await stat(path);
    if (mtimeMs >= beforeMs) continue;
    await rm(path, { force: true });
    freedBytes += blocks * 512;
  }
  return freedBytes;
}

function openSource(
  source: DiskSource,
  from: number,
  isChecked: boolean,
  onTotal: (sizeBytes: number) => void,
  call: Call,
): AsyncIterable<Uint8Array> {
  if (source.kind === "bytes") return source.bytes;
  if (source.kind === "file") return createReadStream(source.path, { highWaterMark: pieceBytes });
  const blob = { kind: "http", url: addressOf(source.url).href, ...noHeaders } as const;
  return inLargePieces(openHttpBlob(blob, call, { from, onTotal, follow: anywhere(isChecked) }));
}

/**
 * Where a redirect may lead. Publishers send us to mirrors, many of them without TLS, which is as good where a checksum
 * decides. Nobody out there sends us to services of this machine, which trust whoever asks from here.
 */
function anywhere(isChecked: boolean): (location: string, from: URL, asked: URL) => URL {
  return (location, from, asked) => {
    const url = URL.parse(location, from);
    if (url === null || !["http:", "https:"].includes(url.protocol)) {
      throw new Fault("hostile", `${asked.host} leads to an address that is not one of the web`);
    }
    if (isThisMachine(url) && !isThisMachine(asked)) {
      throw new Fault("hostile", `${asked.host} leads to an address of this machine`);
    }
    if (asked.protocol === "https:" && url.protocol === "http:" && !isChecked) {
      throw new Fault("hostile", `${asked.host} leads to ${url.host} without TLS, and nothing vouches for what comes`, {
        hint: "give the image's checksum",
      });
    }
    return url;
  };
}

function isThisMachine({ hostname }: URL): boolean {
  return (
    hostname === "localhost" || hostname === "[::1]" || /^(127|169\.254)\./.test(hostname) || hostname === "0.0.0.0"
  );
}

/** From the network come pieces of at most 64 KiB; each that is written costs a trip to the thread pool. */
async function* inLargePieces(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of source) {
      pieces.push(chunk);
      sizeBytes += chunk.length;
      if (sizeBytes < pieceBytes) continue;
      yield Buffer.concat(pieces);
      pieces = [];
      sizeBytes = 0;
    }
  } catch (error) {
    // What came is kept, so that the next attempt need not fetch it again.
    if (pieces.length > 0) yield Buffer.concat(pieces);
    throw error;
  }
  if (pieces.length > 0) yield Buffer.concat(pieces);
}

function sizeOf(source: DiskSource): number | undefined {
  if (source.kind === "url") return undefined;
  if (source.kind === "bytes") return source.sizeBytes;
  try {
    const facts = statSync(source.path);
    if (facts.isFile()) return facts.size;
  } catch (error) {
    throw hostFault(error, `read ${source.path}`);
  }
  throw new Fault("invalid", `${source.path} is not a file`);
}

function refuseSize(sizeBytes: number, limits: DiskImageLimits): void {
  if (sizeBytes <= limits.maxReceivedBytes) return;
  throw new Fault("exhausted", `the image is larger than the ${formatSize(limits.maxReceivedBytes)} allowed`);
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** A full disk has been told already by what could not be written. */
function ifCannotFinish(error: unknown): void {
  if (!isFault(error)) throw error;
}
