import type { BlockFile } from "./block-file.ts";
import { blockBytes, nullBlock } from "./format.ts";

/** A run of a sparse file that holds data; everything between runs is zeros. */
export interface Extent {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Bounds a chunk map to 64 KiB: a larger file gets larger chunks, up to the format's limit of 2^31 blocks each. */
const maxChunks = 2 ** 14;

/**
 * Writes the data of a sparse file chunk by chunk and remembers which chunk lies where. Only chunks that hold data take
 * address space, and what is not written of those is a hole in the host's file, so zeros take no disk either way.
 */
export class ChunkMap {
  readonly #file: BlockFile;
  readonly #sizeBytes: number;
  readonly #chunkBytes: number;
  readonly #addresses: Uint32Array;
  /** The chunk being written and where in the file it began; -1 before the first. */
  #chunk = -1;
  #chunkOffset = 0;

  constructor(file: BlockFile, sizeBytes: number) {
    let blocksPerChunk = 1;
    while (Math.ceil(sizeBytes / (blocksPerChunk * blockBytes)) > maxChunks) blocksPerChunk *= 2;
    this.#file = file;
    this.#sizeBytes = sizeBytes;
    this.#chunkBytes = blocksPerChunk * blockBytes;
    this.#addresses = new Uint32Array(Math.ceil(sizeBytes / this.#chunkBytes)).fill(nullBlock);
  }

  /** Bytes of the map behind the inode. */
  get mapBytes(): number {
    return this.#addresses.byteLength;
  }

  /** What the inode says of the chunks' size. */
  get format(): number {
    return Math.log2(this.#chunkBytes / blockBytes);
  }

  /** Writes `bytes` at `offset` of the sparse file; offsets only grow. */
  write(bytes: Uint8Array, offset: number): void {
    let done = 0;
    while (done < bytes.length) {
      const at = offset + done;
      const chunk = Math.floor(at / this.#chunkBytes);
      if (chunk !== this.#chunk) {
        this.finish();
        this.#chunk = chunk;
        this.#chunkOffset = this.#file.position;
        this.#addresses[chunk] = this.#chunkOffset / blockBytes;
      }
      const within = at - chunk * this.#chunkBytes;
      this.#file.skip(this.#chunkOffset + within - this.#file.position);
      const count = Math.min(bytes.length - done, this.#chunkBytes - within);
      this.#file.append(bytes.subarray(done, done + count));
      done += count;
    }
  }

  /** Fills up the last chunk: to its end, or to the end of the file in whole blocks. */
  finish(): void {
    if (this.#chunk === -1) return;
    const left = this.#sizeBytes - this.#chunk * this.#chunkBytes;
    const fullBytes = Math.min(this.#chunkBytes, Math.ceil(left / blockBytes) * blockBytes);
    this.#file.skip(this.#chunkOffset + fullBytes - this.#file.position);
  }

  encode(target: Buffer, offset: number): void {
    for (const [index, address] of this.#addresses.entries()) target.writeUInt32LE(address, offset + index * 4);
  }
}
