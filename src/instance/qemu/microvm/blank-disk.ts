import { closeSync, openSync, readSync, renameSync, rmSync, statSync } from "node:fs";
import { sha256 } from "../../../base/id.ts";
import { hostFault } from "../../../host/errno.ts";
import { type SparseContent, writeSparse } from "../../../host/sparse.ts";

/** The writable disk of an instance that never ran: it holds an empty ext4 file system, and it may be put another in its place. */

/** ext4's superblock, and where in it stand the number that marks it, and what the first mount changes. */
const superblock = { offset: 1024, sizeBytes: 1024, magicAt: 0x38, magic: 0xef53, mountTimeAt: 0x2c, mountsAt: 0x34 };

/** Equal for disks whose file systems were made alike; undefined for one that was mounted, or holds something else. */
export function blankMark(path: string): string | undefined {
  const bytes = Buffer.alloc(superblock.sizeBytes);
  const fd = openSync(path, "r");
  try {
    if (readSync(fd, bytes, 0, bytes.length, superblock.offset) < bytes.length) return undefined;
  } finally {
    closeSync(fd);
  }
  if (bytes.readUInt16LE(superblock.magicAt) !== superblock.magic) return undefined;
  const wasMounted = bytes.readUInt32LE(superblock.mountTimeAt) !== 0 || bytes.readUInt16LE(superblock.mountsAt) !== 0;
  return wasMounted ? undefined : sha256(bytes);
}

/** In one go, under the same name and owner: whoever reads it afterwards finds the one or the other. */
export function replaceDisk(path: string, content: SparseContent): void {
  const { uid, gid } = statSync(path);
  const next = `${path}.next`;
  rmSync(next, { force: true });
  try {
    writeSparse(next, content, uid, gid);
    renameSync(next, path);
  } catch (error) {
    rmSync(next, { force: true });
    throw hostFault(error, `write ${path}`);
  }
}
