import { closeSync, constants, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/** What is being written lies here until it is complete and verified. One ingest of a path at a time. */
export function partialPath(path: string): string {
  return `${path}.partial`;
}

/** A file that becomes visible under its name only when it is complete. */
export class PendingFile {
  readonly #path: string;
  readonly fd: number;
  #isOpen = true;
  #isPublished = false;

  constructor(path: string) {
    this.#path = path;
    rmSync(partialPath(path), { force: true });
    this.fd = openSync(partialPath(path), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  }

  append(bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) done += writeSync(this.fd, bytes, done);
  }

  /** Puts the bytes on disk. To be done before `publish`, so that no name ever leads to half a file. */
  sync(): void {
    fsyncSync(this.fd);
    this.#close();
  }

  /** Gives the file its name, which then survives a power cut. */
  publish(): void {
    renameSync(partialPath(this.#path), this.#path);
    this.#isPublished = true;
    const directory = openSync(dirname(this.#path), constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  }

  discard(): void {
    this.#close();
    rmSync(this.#isPublished ? this.#path : partialPath(this.#path), { force: true });
  }

  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.fd);
  }
}
