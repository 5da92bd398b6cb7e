import { createHash, type Hash } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { throwIfCancelled, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Digest } from "../../base/id.ts";
import { ErofsWriter } from "../erofs/writer.ts";
import { decompressorFor } from "./compression.ts";
import { LayerTree, showName } from "./layer-tree.ts";
import type { LayerLimits } from "./limit.ts";
import { PendingFile } from "./pending-file.ts";
import { TarReader } from "./tar-reader.ts";
import { layerTopic, VerifiedBlob } from "./verified-blob.ts";

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

/**
 * Streams a layer's blob into one EROFS file: both digests, gunzip or zstd, tar and file system in one pass. The file gets
 * its name only after digest, size and diff id turned out right and its bytes are on disk; on any failure nothing stays.
 *
 * File writes are synchronous, so this belongs in a worker (`LayerWorkers`).
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
    await target.sync();
    await kept?.sync();
    await kept?.publish();
    await target.publish();
    return facts;
  } catch (thrown) {
    await target.discard();
    await kept?.discard();
    // What a cancelled stream throws does not say why it was cancelled.
    if (!(thrown instanceof Fault)) throwIfCancelled(call);
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
  if ((expected.sizeBytes ?? 0) > limits.maxUnpackedBytes) {
    throw new Fault("exhausted", `its blob has more than the ${limits.maxUnpackedBytes} bytes that it may unpack to`);
  }
  const blob = new VerifiedBlob(source, kept, expected, call);
  // At every write, as a few bytes of a tar may become a hundred thousand here.
  const writer = new ErofsWriter(target.fd, (position) => target.syncBehind(position));
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
  const diffId = diffHash === undefined ? digest : (`sha256:${diffHash.digest("hex")}` as Digest);
  if (expected.diffId !== undefined && expected.diffId !== diffId) {
    throw new Fault("corrupt", `its tar has the digest ${diffId}, but the image says ${expected.diffId}`);
  }
  throwIfCancelled(call);
  const uuid = Buffer.from(diffId.slice("sha256:".length), "hex").subarray(0, 16);
  const { sizeBytes: erofsBytes } = writer.finish(tree.finish(), uuid);
  return { digest, diffId, sizeBytes: blob.sizeBytes, unpackedBytes, erofsBytes, entries: tree.entries };
}

function checkExpansion(unpackedBytes: number, sizeBytes: number, limits: LayerLimits): void {
  if (unpackedBytes > limits.maxUnpackedBytes) {
    throw new Fault("exhausted", `it unpacks to more than ${limits.maxUnpackedBytes} bytes`);
  }
  if (unpackedBytes > limits.ratioFloorBytes && unpackedBytes > sizeBytes * limits.maxRatio) {
    throw new Fault("hostile", `it expands more than ${limits.maxRatio} times, to over ${unpackedBytes} bytes`);
  }
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

function inEntry(thrown: unknown, entry: string): unknown {
  if (!(thrown instanceof Fault) || entry === "") return thrown;
  return new Fault(thrown.reason, `entry ${showName(entry)}: ${thrown.message}`, {
    cause: thrown.cause,
    detail: { entry: Buffer.from(entry.slice(0, 4096), "latin1").toString("utf8") },
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
