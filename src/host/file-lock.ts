import { dlopen, getInt32 } from "node:ffi";
import { errnoFault, errnoName } from "./errno.ts";

/** Locks that other processes hold on parts of a file. QEMU and its tools hold some on every image that they have open. */

const getOpenFileLock = 36;
const writeLock = 1;
const noLock = 2;
const lockStructureBytes = 32;

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  fcntl: { arguments: ["i32", "i32", "buffer"], return: "i32" },
});
const errnoAddress = libc.__errno_location();

/** Whether somebody else holds a lock, of whatever kind, on a byte of this range of the open file. */
export function isLocked(fd: number, offset: number, sizeBytes: number): boolean {
  const lock = Buffer.alloc(lockStructureBytes);
  lock.writeInt16LE(writeLock, 0);
  lock.writeBigInt64LE(BigInt(offset), 8);
  lock.writeBigInt64LE(BigInt(sizeBytes), 16);
  if (libc.fcntl(fd, getOpenFileLock, lock) === -1) {
    throw errnoFault(errnoName(getInt32(errnoAddress)), "look for locks on a file");
  }
  return lock.readInt16LE(0) !== noLock;
}
