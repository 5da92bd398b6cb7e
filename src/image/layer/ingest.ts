import { createHash, type Hash } from "node:crypto";
import { closeSync, constants, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { throwIfCancelled, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Digest } from "../../base/id.ts";
import { ErofsWriter } from "../erofs/writer.ts";
import { decompressorFor } from "./compression.ts";
import { LayerTree, showName } from "./layer-tree.ts";
import type { LayerLimits } from "./limit.ts";
import { TarReader } from "./tar-reader.ts";

/** What a manifest says of a layer. What is absent is not known beforehand, as with a layer built here, and is found out. */
export interface LayerExpectation {
  /** Of the blob as it is transferred. */
  readonly digest?: Digest;
  readonly sizeBytes?: number;
  /** Of the uncompressed tar. */
  readonly diffId?: Digest;
}

/** What a layer turned out to be. */
export interface LayerFacts {
  readonly digest: Digest;
  readonly diffId: Digest;
  readonly sizeBytes: number;
  /** Of the uncompressed tar. */
  readonly unpackedBytes: number;
  readonly erofsBytes: number;
  /** Entries of the tar, and directories that it only implied. */
  readonly entries: number;
}

export interface IngestOptions {
  /** Where the file system goes; a file of that name is replaced. */
  readonly targetPath: string;
  /** Also keep the blob as it came, here: pushing and saving need the very bytes of the digest. */
  readonly keepBlobPath?: string;
}

/** From the network come pieces of at most 64 KiB; gathered to this, unpacking takes half the time. */
const pieceBytes = 1 << 20;
/** Progress more often than this would only be traffic between threads. */
const progressStepBytes = 1 << 20;

/** What a layer is called in progress and errors. */
export function layerTopic(expected: LayerExpectation): string {
  return `layer ${expected.digest ?? "being built"}`;
}

/** What is being written lies here until it is complete and verified. One ingest of a path at a time. */
export function partialPath(path: string): string {
  return `${path}.partial`;
}

/**
 * Streams a layer's blob into one EROFS file: both digests, gunzip or zstd, tar and file system in one pass. The file gets
 * its name only after digest, size and diff id turned out right and its bytes are on disk; on any failure nothing stays.
 *
 * File writes are synchronous, so this belongs in a worker thread (`LayerWorkers`).
 *
 * @throws Fault naming layer and entry: `corrupt` when the content is not what it claims to be, `hostile` when it tried to
 *   leave its bounds, `exhausted` when it crosses a limit or the disk is full, `cancelled`, and what `source` throws.
 */
export async function ingestLayer(
  source: AsyncIterable<Uint8Array>,
  options: IngestOptions,
  expected: LayerExpectation,
  limits: LayerLimits,
  call: Call,
): Promise<LayerFacts> {
  const target = new PendingFile(options.targetPath);
  let kept: PendingFile | undefined;
  try {
    kept = options.keepBlobPath === undefined ? undefined : new PendingFile(options.keepBlobPath);
    const facts = await unpack(source, target, kept, expected, limits, call);
    kept?.commit();
    target.commit();
    return facts;
  } catch (thrown) {
    target.discard();
    kept?.discard();
    throw faultOf(thrown, `unpack ${layerTopic(expected)}`);
  }
}

async function unpack(
  source: AsyncIterable<Uint8Array>,
  target: PendingFile,
  kept: PendingFile | undefined,
  expected: LayerExpectation,
  limits: LayerLimits,
  call: Call,
): Promise<LayerFacts> {
  const blob = new VerifiedBlob(source, kept, expected, call);
  const writer = new ErofsWriter(target.fd);
  const tree = new LayerTree(writer, limits);
  const reader = new TarReader(tree);
  let unpackedBytes = 0;
  let diffHash: Hash | undefined;

  const consume = (chunk: Buffer): void => {
    throwIfCancelled(call);
    unpackedBytes += chunk.length;
    checkExpansion(unpackedBytes, blob.sizeBytes, limits);
    diffHash?.update(chunk);
    reader.push(chunk);
  };
  try {
    const { first, rest } = await peek(blob.chunks());
    const decompressor = decompressorFor(first);
    if (decompressor === undefined) {
      for await (const chunk of rest) consume(chunk);
    } else {
      diffHash = createHash("sha256");
      await pipeline(Readable.from(rest, { highWaterMark: 4 }), decompressor, async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) consume(chunk);
      });
    }
    reader.end();
  } catch (thrown) {
    throw inEntry(thrown, reader.current);
  }

  const digest = blob.verifiedDigest();
  const diffId = diffHash === undefined ? digest : digestOf(diffHash);
  if (expected.diffId !== undefined && expected.diffId !== diffId) {
    throw new Fault("corrupt", `its tar has the digest ${diffId}, but the image says ${expected.diffId}`);
  }
  throwIfCancelled(call);
  const uuid = Buffer.from(diffId.slice("sha256:".length), "hex").subarray(0, 16);
  const { sizeBytes: erofsBytes } = writer.finish(tree.finish(), uuid);
  return { digest, diffId, sizeBytes: blob.sizeBytes, unpackedBytes, erofsBytes, entries: tree.entries };
}

/** The blob's bytes on their way: counted, hashed, kept where wanted, and held against what was expected of them. */
class VerifiedBlob {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #kept: PendingFile | undefined;
  readonly #expected: LayerExpectation;
  readonly #call: Call;
  readonly #hash = createHash("sha256");
  #digest: Digest | undefined;
  sizeBytes = 0;
  #reportedBytes = 0;

  constructor(
    source: AsyncIterable<Uint8Array>,
    kept: PendingFile | undefined,
    expected: LayerExpectation,
    call: Call,
  ) {
    this.#source = source;
    this.#kept = kept;
    this.#expected = expected;
    this.#call = call;
  }

  async *chunks(): AsyncGenerator<Buffer> {
    const { sizeBytes, digest } = this.#expected;
    for await (const chunk of inLargePieces(this.#source)) {
      throwIfCancelled(this.#call);
      this.sizeBytes += chunk.length;
      if (sizeBytes !== undefined && this.sizeBytes > sizeBytes) {
        throw new Fault("corrupt", `its blob is longer than the ${sizeBytes} bytes that the image says`);
      }
      this.#hash.update(chunk);
      this.#kept?.append(chunk);
      yield chunk;
      this.#reportProgress();
    }
    if (sizeBytes !== undefined && this.sizeBytes < sizeBytes) {
      throw new Fault("corrupt", `its blob ends after ${this.sizeBytes} of ${sizeBytes} bytes`);
    }
    this.#digest = digestOf(this.#hash);
    if (digest !== undefined && digest !== this.#digest) {
      throw new Fault("corrupt", `its blob has the digest ${this.#digest}, but the image says ${digest}`);
    }
  }

  #reportProgress(): void {
    if (this.sizeBytes - this.#reportedBytes < progressStepBytes) return;
    this.#reportedBytes = this.sizeBytes;
    const { sizeBytes: total } = this.#expected;
    const progress = {
      topic: layerTopic(this.#expected),
      state: "unpacking",
      done: this.sizeBytes,
      unit: "bytes",
    } as const;
    this.#call.report(total === undefined ? progress : { ...progress, total });
  }

  /** The digest of all bytes. A decompressor that stopped before the end left bytes that nobody looked at. */
  verifiedDigest(): Digest {
    if (this.#digest === undefined) throw new Fault("corrupt", "something follows the end of its compressed data");
    return this.#digest;
  }
}

/** A file that becomes visible under its name only when it is complete. */
class PendingFile {
  readonly #path: string;
  readonly fd: number;
  #isOpen = true;

  constructor(path: string) {
    this.#path = path;
    rmSync(partialPath(path), { force: true });
    this.fd = openSync(partialPath(path), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  }

  append(bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) done += writeSync(this.fd, bytes, done);
  }

  /** After this the file is on disk under its name, whatever happens to the machine. */
  commit(): void {
    fsyncSync(this.fd);
    this.#close();
    renameSync(partialPath(this.#path), this.#path);
    const directory = openSync(dirname(this.#path), constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  }

  discard(): void {
    this.#close();
    rmSync(partialPath(this.#path), { force: true });
  }

  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.fd);
  }
}

function checkExpansion(unpackedBytes: number, sizeBytes: number, limits: LayerLimits): void {
  if (unpackedBytes > limits.maxUnpackedBytes) {
    throw new Fault("exhausted", `it unpacks to more than ${limits.maxUnpackedBytes} bytes`);
  }
  if (unpackedBytes > limits.ratioFloorBytes && unpackedBytes > sizeBytes * limits.maxRatio) {
    throw new Fault("hostile", `it expands more than ${limits.maxRatio} times, to over ${unpackedBytes} bytes`);
  }
}

/** The same bytes in pieces of about a MiB: each piece costs a trip to the thread pool, however small it is. */
async function* inLargePieces(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let piece = Buffer.alloc(0);
  let used = 0;
  for await (const bytes of source) {
    if (used === 0 && bytes.length >= pieceBytes / 2) {
      yield Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      continue;
    }
    for (let done = 0; done < bytes.length;) {
      if (used === 0) piece = Buffer.allocUnsafeSlow(pieceBytes);
      const count = Math.min(bytes.length - done, pieceBytes - used);
      piece.set(bytes.subarray(done, done + count), used);
      used += count;
      done += count;
      if (used < pieceBytes) continue;
      yield piece;
      used = 0;
    }
  }
  if (used > 0) yield piece.subarray(0, used);
}

/** The first bytes, at least four unless there are fewer, and an iterable that still has all of them. */
async function peek(chunks: AsyncGenerator<Buffer>): Promise<{ first: Buffer; rest: AsyncGenerator<Buffer> }> {
  let first: Buffer = Buffer.alloc(0);
  while (first.length < 4) {
    const next = await chunks.next();
    if (next.done === true) break;
    first = first.length === 0 ? next.value : Buffer.concat([first, next.value]);
  }
  async function* all(): AsyncGenerator<Buffer> {
    if (first.length > 0) yield first;
    yield* chunks;
  }
  return { first, rest: all() };
}

function digestOf(hash: Hash): Digest {
  return `sha256:${hash.digest("hex")}` as Digest;
}

function inEntry(thrown: unknown, entry: string): unknown {
  if (!(thrown instanceof Fault) || entry === "") return thrown;
  return new Fault(thrown.reason, `entry ${showName(entry)}: ${thrown.message}`, {
    cause: thrown.cause,
    detail: { entry: Buffer.from(entry, "latin1").toString("utf8") },
    ...(thrown.hint === undefined ? {} : { hint: thrown.hint }),
  });
}

const hints: Partial<Record<Fault["reason"], string>> = {
  corrupt: "pull or build the image again; if it stays, its registry or archive is damaged",
  hostile: "do not trust this image: tell whoever published it",
  exhausted: "raise the limit if you trust this image, or use a smaller one",
};

/** Whatever went wrong, as a Fault that says of which layer. */
function faultOf(thrown: unknown, attempted: string): Fault {
  const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
  if (thrown instanceof Fault) {
    const hint = thrown.hint ?? hints[thrown.reason];
    return new Fault(thrown.reason, `${attempted}: ${thrown.message}`, {
      cause: thrown.cause ?? thrown,
      detail: thrown.detail,
      ...(hint === undefined ? {} : { hint }),
    });
  }
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") {
    return new Fault("exhausted", `${attempted}: no room for it on the disk`, {
      cause: thrown,
      hint: "free some space, for example with croft image gc, and try again",
    });
  }
  if (code.startsWith("Z_") || code.startsWith("ZSTD_") || code === "ERR_STREAM_PREMATURE_CLOSE") {
    const hint = hints.corrupt ?? "";
    return new Fault("corrupt", `${attempted}: its compressed data is damaged`, { cause: thrown, hint });
  }
  return Fault.from(thrown, attempted);
}
