import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { errnoOf, hostFault } from "./errno.ts";
import { seek } from "./kernel.ts";

/**
 * Files that others write to by a descriptor of ours and that never fill a file system: each file system has a last offset,
 * and the descriptor stands just before it. What was never written takes no room.
 */

/** What `lseek` takes at most. */
const largestOffset = 2n ** 63n - 1n;

/**
 * A descriptor to write with, of a file that is empty and never holds more than `maxBytes`. Of a write that reaches beyond,
 * most file systems take what fits, and tmpfs nothing. Whoever gets it must neither seek nor open the file by its name.
 */
export function createBoundedFile(path: string, maxBytes: number): number {
  try {
    const { O_WRONLY, O_CREAT, O_TRUNC } = constants;
    const fd = openSync(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600);
    // Which one that is differs, and nothing says it.
    let last = 0n;
    for (let beyond = largestOffset + 1n; last + 1n < beyond;) {
      const middle = (last + beyond) / 2n;
      if (seek(fd, middle)) last = middle;
      else beyond = middle;
    }
    seek(fd, last - BigInt(maxBytes));
    return fd;
  } catch (error) {
    throw hostFault(error, `open ${path}`);
  }
}

/**
 * What was written to such a file, or the last `maxBytes` of any other, however large it became; undefined when it is not
 * there. Links are not followed.
 */
export function readBoundedFile(path: string, maxBytes: number): Buffer | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const { size } = fstatSync(fd, { bigint: true });
    const limit = BigInt(maxBytes);
    const bytes = Buffer.alloc(maxBytes);
    const read = readSync(fd, bytes, 0, maxBytes, size > limit ? size - limit : 0n);
    const written = bytes.subarray(0, read);
    const first = written.findIndex((byte) => byte !== 0);
    return first === -1 ? Buffer.alloc(0) : written.subarray(first);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) return undefined;
    throw hostFault(error, `read ${path}`);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
