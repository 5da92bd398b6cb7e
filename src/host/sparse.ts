import { dlopen, getInt32 } from "node:ffi";
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
