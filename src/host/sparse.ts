import { dlopen, getInt32 } from "node:ffi";
import { closeSync, constants, fchownSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoName } from "./errno.ts";

/** Sparse files: where their data is, without reading the holes. */

export interface Extent {
  readonly offset: number;
  readonly sizeBytes: number;
}

const seekData = 3;
const seekHole = 4;

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  lseek: { arguments: ["i32", "i64", "i32"], return: "i64" },
});
const errnoAddress = libc.__errno_location();

/**
 * The parts of an open file that may hold something, in order; all between them reads as zeros. Moves the descriptor's
 * position. On a file system that does not know, the whole file is one part.
 */
export function* dataExtents(fd: number): Generator<Extent> {
  for (let from = 0; ;) {
    const offset = seek(fd, from, seekData);
    if (offset === undefined) return;
    const end = seek(fd, offset, seekHole) ?? offset;
    if (end === offset) return;
    yield { offset, sizeBytes: end - offset };
    from = end;
  }
}

/** Undefined when there is no data at or after `from`. */
function seek(fd: number, from: number, whence: number): number | undefined {
  const found = Number(libc.lseek(fd, BigInt(from), whence));
  if (found !== -1) return found;
  const errno = errnoName(getInt32(errnoAddress));
  if (errno === "ENXIO") return undefined;
  throw errnoFault(errno, "find the data of a sparse file");
}

/** What a sparse file holds: between the pieces, in order, are zeros. */
export interface SparseContent {
  readonly sizeBytes: number;
  readonly pieces: readonly { readonly offset: number; readonly bytes: Buffer }[];
}

const blockBytes = 4096;

/** All blocks of the file that are not zeros, neighbours in one piece; `exhausted` for more than so many bytes of data. */
export function readSparse(path: string, maxDataBytes: number): SparseContent {
  const fd = openSync(path, "r");
  const zeros = Buffer.alloc(blockBytes);
  const pieces: { offset: number; bytes: Buffer }[] = [];
  let dataBytes = 0;
  try {
    const { size: sizeBytes } = fstatSync(fd);
    for (const extent of dataExtents(fd)) {
      dataBytes += extent.sizeBytes;
      if (dataBytes > maxDataBytes) throw new Fault("exhausted", `${path} holds more than ${maxDataBytes} bytes`);
      const bytes = Buffer.alloc(extent.sizeBytes);
      readSync(fd, bytes, 0, bytes.length, extent.offset);
      for (let at = 0; at < bytes.length; at += blockBytes) {
        const begin = at;
        while (at < bytes.length && !bytes.subarray(at, at + blockBytes).equals(zeros.subarray(0, bytes.length - at)))
          at += blockBytes;
        if (at > begin) pieces.push({ offset: extent.offset + begin, bytes: bytes.subarray(begin, at) });
      }
    }
    return { sizeBytes, pieces };
  } finally {
    closeSync(fd);
  }
}

/** Makes the file, which must not be there, for its owner alone. It is whole when this returns, but not yet on the disk. */
export function writeSparse(path: string, { sizeBytes, pieces }: SparseContent, ownerUid: number, ownerGid = 0): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    ftruncateSync(fd, sizeBytes);
    for (const { offset, bytes } of pieces) {
      for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
    }
    if (ownerUid !== 0 || ownerGid !== 0) fchownSync(fd, ownerUid, ownerGid);
  } finally {
    closeSync(fd);
  }
}
