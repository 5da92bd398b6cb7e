import { closeSync, constants, fdatasync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { RoomWatch } from "../room.ts";

/** What ends so was being written when its worker or the machine was stopped, and can be removed when no worker runs. */
export const partialSuffix = ".partial";

/**
 * Where the process `pid` writes what will be at `path`. Each process has a file of its own, so that one which outlives its
 * daemon by a moment never gives the name to what its successor is still writing.
 */
export function partialPath(path: string, pid: number): string {
  return `${path}.${pid}${partialSuffix}`;
}

/** So much is written before the disk is set to work on it. */
const syncStepBytes = 32 << 20;

const syncData = promisify(fdatasync);

/** A file that becomes visible under its name only when it is complete. In one process, one at a time for each path. */
export class PendingFile {
  readonly #path: string;
  readonly #partialPath: string;
  readonly fd: number;
  readonly #room: RoomWatch;
  #isOpen = true;
  #isPublished = false;
  #syncing: Promise<void> | undefined;
  #syncedBytes = 0;
  /** The kernel tells of a failed write once; whoever waits for the next sync would not hear of it. */
  #syncFailure: unknown;

  constructor(path: string) {
    this.#path = path;
    this.#partialPath = partialPath(path, process.pid);
    this.#room = new RoomWatch(dirname(path));
    rmSync(this.#partialPath, { force: true });
    this.fd = openSync(this.#partialPath, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  }

  append(bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) done += writeSync(this.fd, bytes, done);
  }

  /**
   * Lets the disk begin with what was written, `writtenBytes` in all, while more is being written: at the end only the
   * rest is left to wait for. Cheap; may be called often. Throws an `exhausted` Fault when it fills the disk.
   */
  syncBehind(writtenBytes: number): void {
    this.#room.reached(writtenBytes);
    if (this.#syncing !== undefined || writtenBytes - this.#syncedBytes < syncStepBytes) return;
    this.#syncedBytes = writtenBytes;
    this.#syncing = syncData(this.fd)
      .catch((error: unknown) => {
        this.#syncFailure ??= error;
      })
      .finally(() => {
        this.#syncing = undefined;
      });
  }

  /** Puts all bytes on disk. To be done before `publish`, so that no name ever leads to half a file. */
  async sync(): Promise<void> {
    await this.#syncing;
    if (this.#syncFailure !== undefined) throw this.#syncFailure;
    await syncData(this.fd);
    await this.#close();
  }

  /** Gives the file its name, which then survives a power cut. */
  async publish(): Promise<void> {
    renameSync(this.#partialPath, this.#path);
    this.#isPublished = true;
    const directory = openSync(dirname(this.#path), constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await syncData(directory);
    } finally {
      closeSync(directory);
    }
  }

  /** Removes it, also when it has its name already. */
  async discard(): Promise<void> {
    await this.#close();
    rmSync(this.#isPublished ? this.#path : this.#partialPath, { force: true });
  }

  /** A number that is closed while the thread pool still works with it may belong to another file by then. */
  async #close(): Promise<void> {
    await this.#syncing;
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.fd);
  }
}
