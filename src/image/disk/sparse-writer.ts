import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { Fault } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";
import { RoomWatch } from "../room.ts";

const blockBytes = 64 << 10;
const zeros = Buffer.alloc(blockBytes);

/** Writes a file from its beginning, or from where it ends, and leaves holes where zeros would be. */
export class SparseWriter implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #room: RoomWatch;
  /** How much was written, holes included. */
  sizeBytes: number;

  private constructor(file: FileHandle, path: string, sizeBytes: number) {
    this.#file = file;
    this.#path = path;
    this.#room = new RoomWatch(dirname(path));
    this.sizeBytes = sizeBytes;
  }

  /** `append`: goes on where a file that is there ends; otherwise the file must not be there. */
  static async open(path: string, mode: "new" | "append"): Promise<SparseWriter> {
    try {
      const file = await open(path, mode === "new" ? "wx" : "r+", 0o600);
      return new SparseWriter(file, path, mode === "new" ? 0 : (await file.stat()).size);
    } catch (error) {
      throw hostFault(error, `write ${path}`);
    }
  }

  async write(chunk: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < chunk.length;) {
        const begin = at;
        while (at < chunk.length && !isZero(chunk, at)) at += blockBytes;
        const end = Math.min(at, chunk.length);
        if (end > begin) await this.#writeAll(chunk.subarray(begin, end), this.sizeBytes + begin);
        while (at < chunk.length && isZero(chunk, at)) at += blockBytes;
      }
    } catch (error) {
      throw writeFault(error, this.#path);
    }
    this.sizeBytes += chunk.length;
    this.#room.reached(this.sizeBytes);
  }

  /** Puts all of it on the disk, holes at the end included. */
  async finish(): Promise<void> {
    try {
      await this.#file.truncate(this.sizeBytes);
      await this.#file.sync();
    } catch (error) {
      throw writeFault(error, this.#path);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  async #writeAll(bytes: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, position + done);
      done += bytesWritten;
    }
  }
}

function writeFault(error: unknown, path: string): Fault {
  const fault = hostFault(error, `write ${path}`);
  if (fault.reason !== "exhausted") return fault;
  const { message, cause, detail } = fault;
  return new Fault("exhausted", message, {
    cause,
    detail,
    hint: "make room on the disk, for example with croft image gc",
  });
}

function isZero(chunk: Uint8Array, at: number): boolean {
  const length = Math.min(blockBytes, chunk.length - at);
  return zeros.compare(chunk, at, at + length, 0, length) === 0;
}
