import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";
import { emptyQcow2, type NewQcow2, parseQcow2, type Qcow2Header, qcow2HeadBytes } from "../../base/qcow2.ts";
import { hostFault } from "../../host/errno.ts";
import { isLocked } from "../../host/file-lock.ts";

/** Images in files of ours. What is needed of them fits a few clusters, so it is read on the spot. */

export interface ImageFacts extends Qcow2Header {
  /** Of the host's disk. */
  readonly usedBytes: number;
  readonly uid: number;
  readonly mode: number;
}

export function readImage(path: string): ImageFacts {
  return withFile(path, (fd) => {
    const { size, blocks, uid, mode } = fstatSync(fd);
    const head = Buffer.alloc(Math.min(size, qcow2HeadBytes));
    const length = readSync(fd, head, 0, head.length, 0);
    const header = parseQcow2(head.subarray(0, length), size, path);
    return { ...header, usedBytes: blocks * statBlockBytes, uid, mode: mode & 0o777 };
  });
}

/** Whether anything was ever written to it; otherwise it reads as its base does. */
export function hasContent(path: string, { l1Offset, l1Entries }: Qcow2Header): boolean {
  return withFile(path, (fd) => {
    const table = Buffer.alloc(l1Entries * 8);
    readSync(fd, table, 0, table.length, l1Offset);
    return table.some((byte) => byte !== 0);
  });
}

/** Whether QEMU or one of its tools has it open: they hold locks on these bytes, which stand for no content. */
export function isImageOpen(path: string): boolean {
  return withFile(path, (fd) => isLocked(fd, 100, 200));
}

/** Makes the file at `path`, which must not be there. It is on the disk when this is done; its name is not. */
export async function writeEmptyImage(path: string, image: NewQcow2): Promise<void> {
  const { fileBytes, pieces } = emptyQcow2(image);
  try {
    const file = await open(path, "wx", 0o600);
    try {
      await file.truncate(fileBytes);
      for (const { offset, bytes } of pieces) {
        const { bytesWritten } = await file.write(bytes, 0, bytes.length, offset);
        if (bytesWritten < bytes.length) throw new Fault("exhausted", `write ${path}: no space left on the device`);
      }
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw hostFault(error, `make the image ${path}`);
  }
}

const statBlockBytes = 512;

function withFile<Result>(path: string, use: (fd: number) => Result): Result {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    return use(fd);
  } catch (error) {
    throw hostFault(error, `read the image ${path}`);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
