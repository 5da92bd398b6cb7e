import { createHash } from "node:crypto";
import { throwIfCancelled, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Digest } from "../../base/id.ts";
import type { LayerExpectation } from "./ingest.ts";
import type { PendingFile } from "./pending-file.ts";

/** From the network come pieces of at most 64 KiB; gathered to this, unpacking takes half the time. */
const pieceBytes = 1 << 20;
/** Progress more often than this would only be traffic between processes. */
const progressStepBytes = 1 << 20;

/** What a layer is called in progress and errors. */
export function layerTopic(expected: LayerExpectation): string {
  return `layer ${expected.digest ?? "being built"}`;
}

/** The blob's bytes on their way: counted, hashed, kept where wanted, and held against what was expected of them. */
export class VerifiedBlob {
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
      this.#kept?.syncBehind(this.sizeBytes);
      yield chunk;
      this.#reportProgress();
    }
    if (sizeBytes !== undefined && this.sizeBytes < sizeBytes) {
      throw new Fault("corrupt", `its blob ends after ${this.sizeBytes} of ${sizeBytes} bytes`);
    }
    this.#digest = `sha256:${this.#hash.digest("hex")}` as Digest;
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
