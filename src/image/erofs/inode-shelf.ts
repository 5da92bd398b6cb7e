import type { BlockFile } from "./block-file.ts";
import { blockBytes } from "./format.ts";

/** 128 KiB: long enough that the data around it is written in large pieces, short enough that an unfilled one is no loss. */
const blocksPerShelf = 32;

/**
 * Places for inodes with what follows them (extended attributes, a chunk map, the tail of the data), which may never
 * cross a block boundary. A shelf is a run of blocks reserved between the data; each item goes to the fullest block
 * that still has room for it, and when none has, the shelf is written and the next one begun. That keeps small files
 * dense without remembering them: what was placed is out of memory one shelf later.
 */
export class InodeShelf {
  readonly #file: BlockFile;
  readonly #bytes = Buffer.alloc(blocksPerShelf * blockBytes);
  readonly #used = new Uint16Array(blocksPerShelf).fill(blockBytes);
  #offset = 0;

  constructor(file: BlockFile) {
    this.#file = file;
  }

  /**
   * Room for `sizeBytes` (at most one block) at a multiple of 32. The returned view is zeroed and must be filled before
   * the next call; `offset` is where it will lie in the file.
   */
  take(sizeBytes: number): { readonly view: Buffer; readonly offset: number } {
    let index = this.#fullestWithRoom(sizeBytes);
    if (index === -1) {
      this.flush();
      this.#offset = this.#file.reserve(this.#bytes.length);
      this.#used.fill(0);
      this.#bytes.fill(0);
      index = 0;
    }
    const within = this.#used[index] ?? 0;
    this.#used[index] = Math.min(blockBytes, Math.ceil((within + sizeBytes) / 32) * 32);
    const start = index * blockBytes + within;
    return { view: this.#bytes.subarray(start, start + sizeBytes), offset: this.#offset + start };
  }

  flush(): void {
    const last = this.#used.findLastIndex((used) => used > 0);
    if (this.#offset > 0) this.#file.writeAt(this.#bytes.subarray(0, (last + 1) * blockBytes), this.#offset);
  }

  #fullestWithRoom(sizeBytes: number): number {
    let best = -1;
    let bestUsed = -1;
    for (const [index, used] of this.#used.entries()) {
      if (used > bestUsed && used + sizeBytes <= blockBytes) {
        best = index;
        bestUsed = used;
      }
    }
    return best;
  }
}
