import { statfsSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { formatSize } from "../base/unit.ts";

/**
 * Images leave this much of the disk free, or what their makers wrote into them would decide when databases, logs and
 * volumes have no place left: a hundredth of it, but no more than 256 MiB.
 */
const reserveShare = 0.01;
const maxReserveBytes = 256 * 2 ** 20;
/** The disk is looked at whenever so much more was written. Several layers at once stay within the reserve. */
const lookBytes = 8 * 2 ** 20;

const hint = "free some space, for example with croft image gc, and try again";

/** Better said before gigabytes were fetched than after. Throws an `exhausted` Fault; needing nothing is always well. */
export function refuseWithoutRoom(directory: string, neededBytes: number, what: string): void {
  const { freeBytes, reserveBytes } = measure(directory);
  if (neededBytes <= Math.max(0, freeBytes - reserveBytes)) return;
  const [needed, free, reserve] = [neededBytes, freeBytes, reserveBytes].map((bytes) => formatSize(bytes));
  throw new Fault("exhausted", `${what} needs ${needed} of disk, and ${free} are free, of which ${reserve} stay so`, {
    hint,
  });
}

/** Watches that what is being written does not fill the disk, whatever was said of its size before. */
export class RoomWatch {
  readonly #directory: string;
  #lookedBytes = 0;

  /** `directory` is on the disk that is written to. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** To be told of the sum of bytes written so far. Cheap; may be called often. Throws an `exhausted` Fault. */
  reached(writtenBytes: number): void {
    if (writtenBytes - this.#lookedBytes < lookBytes) return;
    this.#lookedBytes = writtenBytes;
    const { freeBytes, reserveBytes } = measure(this.#directory);
    if (freeBytes >= reserveBytes) return;
    const [free, reserve] = [freeBytes, reserveBytes].map((bytes) => formatSize(bytes));
    throw new Fault("exhausted", `only ${free} of the disk are free, and ${reserve} have to stay so`, { hint });
  }
}

function measure(directory: string): { readonly freeBytes: number; readonly reserveBytes: number } {
  const { bavail, blocks, bsize } = statfsSync(directory);
  // A few file systems do not tell.
  if (blocks === 0) return { freeBytes: Infinity, reserveBytes: 0 };
  return { freeBytes: bavail * bsize, reserveBytes: Math.min(maxReserveBytes, blocks * bsize * reserveShare) };
}
