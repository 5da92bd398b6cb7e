import { writeSync } from "node:fs";
import { blockBytes } from "./format.ts";

/** One write call a MiB: larger ones gain nothing measurable, smaller ones cost system calls. */
const bufferBytes = 1 << 20;
/** A gap at least this long is jumped over, which leaves a hole in the host's file; a shorter one is written as zeros. */
const holeBytes = 64 * 1024;

/**
 * The target file as the writer fills it: sequential appends through one large buffer, with the ability to leave a gap
 * to be filled later. Writes are synchronous: this runs in a worker, and the page cache answers at memory speed.
 */
export class BlockFile {
  readonly #fd: number;
  readonly #onWritten: (position: number) => void;
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  #bufferOffset = 0;
  #used = 0;

  /** `onWritten` hears after each write, of about a MiB, how far the file reaches; what it throws ends the append. */
  constructor(fd: number, onWritten: (position: number) => void = () => {}) {
    this.#fd = fd;
    this.#onWritten = onWritten;
  }

  /** Where the next appended byte will lie. */
  get position(): number {
    return this.#bufferOffset + this.#used;
  }

  append(bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) {
      if (this.#used === bufferBytes) this.flush();
      const count = Math.min(bytes.length - done, bufferBytes - this.#used);
      this.#buffer.set(done === 0 && count === bytes.length ? bytes : bytes.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
    }
  }

  /** Leaves `count` bytes that read as zeros until someone writes there. */
  skip(count: number): void {
    if (this.#used + count <= bufferBytes && count < holeBytes) {
      this.#buffer.fill(0, this.#used, this.#used + count);
      this.#used += count;
      return;
    }
    this.flush();
    this.#bufferOffset += count;
  }

  /** Goes on at the next block boundary, if not on one. */
  align(): void {
    this.skip((blockBytes - (this.position % blockBytes)) % blockBytes);
  }

  /** Takes a gap of `count` bytes for `writeAt` and returns where it begins. */
  reserve(count: number): number {
    const offset = this.position;
    this.flush();
    this.#bufferOffset += count;
    return offset;
  }

  /** Writes at once, before `position` and outside of what is still buffered. */
  writeAt(bytes: Uint8Array, offset: number): void {
    let done = 0;
    while (done < bytes.length) done += writeSync(this.#fd, bytes, done, bytes.length - done, offset + done);
  }

  flush(): void {
    this.writeAt(this.#buffer.subarray(0, this.#used), this.#bufferOffset);
    this.#bufferOffset += this.#used;
    this.#used = 0;
    this.#onWritten(this.#bufferOffset);
  }
}
