import { closeSync, openSync } from "node:fs";
import { createBoundedFile } from "../../../host/bounded-file.ts";
import { hostFault } from "../../../host/errno.ts";

/** The first descriptor that a program is handed besides its standard ones. */
const firstDescriptor = 3;

/** Descriptors of ours that a program is handed; closed here when it has them. */
export class Descriptors implements Disposable {
  /** Ours, in the order in which they are handed on. */
  readonly all: number[] = [];
  /** The program's numbers of those that QEMU is to open by name. */
  readonly named: number[] = [];
  readonly #borrowed = new Set<number>();

  /** A file that QEMU opens by name; returns the program's number for it. */
  file(path: string, flags: number): number {
    const number = this.open(path, flags);
    this.named.push(number);
    return number;
  }

  /** As `file`, of one that a guest may fill and that never holds more than so many bytes. */
  bounded(path: string, maxBytes: number): number {
    const number = this.add(createBoundedFile(path, maxBytes));
    this.named.push(number);
    return number;
  }

  open(path: string, flags: number): number {
    try {
      return this.add(openSync(path, flags, 0o600));
    } catch (error) {
      throw hostFault(error, `open ${path}`);
    }
  }

  /** Takes it over. */
  add(descriptor: number): number {
    this.all.push(descriptor);
    return firstDescriptor + this.all.length - 1;
  }

  /** Stays open when the others are closed. */
  lend(descriptor: number): number {
    this.#borrowed.add(descriptor);
    return this.add(descriptor);
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.all) if (!this.#borrowed.has(descriptor)) closeSync(descriptor);
  }
}
