import { randomBytes } from "node:crypto";
import { constants, lstatSync, opendirSync, renameSync, rmdirSync } from "node:fs";
import { type FileHandle, lstat, open, rename, unlink } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "./errno.ts";
import { listMounts } from "./mount.ts";

/** Files of the daemon itself, at paths that no workload can write. For trees that are not ours: `beneath.ts`. */

/**
 * Puts `data` at `path` so that after a crash or a power cut there is the old content or the new, never a part.
 * `mode` defaults to 0600. On a full disk: an `exhausted` Fault, and nothing stays behind.
 */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  options: { readonly mode?: number } = {},
): Promise<void> {
  const attempted = `write ${path}`;
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    const file = await open(temporary, "wx", options.mode ?? 0o600);
    try {
      await file.writeFile(data);
      // The mode given to open is cut by the umask.
      await file.chmod(options.mode ?? 0o600);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await unlink(temporary).catch(() => {});
    throw hostFault(error, attempted);
  }
}

/** Makes the names in a directory durable: what was created, renamed or removed there survives a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  let directory: FileHandle | undefined;
  try {
    directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
    await directory.sync();
  } catch (error) {
    throw hostFault(error, `sync directory ${path}`);
  } finally {
    await directory?.close();
  }
}

/** The whole content of a regular file of at most `maxBytes` (default 1 MiB). `not-found` when there is none. */
export async function readSmallFile(path: string, maxBytes: number = 2 ** 20): Promise<Buffer> {
  const attempted = `read ${path}`;
  let file: FileHandle | undefined;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const facts = await file.stat();
    if (!facts.isFile()) throw new Fault("failed", `${attempted}: not a regular file`);
    return await readBounded(file, maxBytes, attempted);
  } catch (error) {
    throw hostFault(error, attempted);
  } finally {
    await file?.close();
  }
}

/** All that `file` gives, which may be more than its size said (files in proc say 0); beyond `maxBytes`: `exhausted`. */
export async function readBounded(file: FileHandle, maxBytes: number, attempted: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(Math.min(64 * 1024, maxBytes + 1 - sizeBytes));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
    if (bytesRead === 0) return Buffer.concat(chunks, sizeBytes);
    chunks.push(chunk.subarray(0, bytesRead));
    sizeBytes += bytesRead;
    if (sizeBytes > maxBytes) throw new Fault("exhausted", `${attempted}: larger than ${maxBytes} bytes`);
  }
}

/** Whether anything is at `path`, a dangling link included. Throws when that cannot be known. */
export async function fileExists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) return false;
    throw hostFault(error, `look for ${path}`);
  }
}

/** Removes a directory that holds nothing; nothing there is fine, and so is one that holds something. */
export function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    if (!["ENOENT", "ENOTEMPTY"].includes(errnoOf(error) ?? "")) throw hostFault(error, `remove ${path}`);
  }
}

/**
 * Removes `path` and all beneath it; nothing there is fine. Follows no link, and refuses (`precondition`) when anything
 * is mounted in the tree: a forgotten mount must never cost somebody's data. Nothing may be at work in the tree any more.
 */
export async function removeTree(path: string): Promise<void> {
  const root = resolve(path);
  try {
    const facts = lstatSync(root, { throwIfNoEntry: false });
    if (facts === undefined) return;
    const [mounted] = listMounts(root);
    if (mounted !== undefined) {
      throw new Fault("precondition", `remove ${root}: ${mounted.target} is mounted in it`, {
        hint: `unmount it: umount ${mounted.target}`,
      });
    }
    const top = Buffer.from(root);
    if (facts.isDirectory()) await removeDirectory(top, { top, device: facts.dev, directories: 0 });
    else await unlink(root).catch(ifMissing(undefined));
  } catch (error) {
    throw hostFault(error, `remove ${root}`);
  }
}

interface Removal {
  readonly top: Buffer;
  readonly device: number;
  directories: number;
}

/**
 * Paths are bytes, as the names of a workload need not be UTF-8. Directories are read and removed on the spot, which
 * takes microseconds, where a trip to Node's thread pool takes longer than all the rest; deleting a file may take
 * long, as all its blocks are freed.
 */
async function removeDirectory(path: Buffer, removal: Removal): Promise<void> {
  removal.directories += 1;
  if (removal.directories % 64 === 0) await setImmediate();
  const directory = opendirSync(path, { encoding: asBytes, bufferSize: 256 });
  try {
    for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
      const inner = beneath(path, entry.name as unknown as Buffer);
      if (!entry.isDirectory() && (await removeFile(inner))) continue;
      // A mount that appeared since the look at the mount table shows as another device.
      if (lstatSync(inner).dev !== removal.device) {
        throw new Fault("precondition", `remove ${inner.toString()}: it is on another file system`);
      }
      await removeDirectory(inner.length > deepBytes ? lifted(inner, removal.top) : inner, removal);
    }
  } finally {
    directory.closeSync();
  }
  rmdirSync(path);
}

/** Node takes this encoding and then gives names as bytes; its types know that for `readdir` only. */
const asBytes = "buffer" as BufferEncoding;

/** A workload can nest directories beyond the 4096 bytes that a path may have; from here on they are moved up first. */
const deepBytes = 3000;

function lifted(path: Buffer, top: Buffer): Buffer {
  const higher = beneath(top, Buffer.from(`.removed-${randomBytes(8).toString("hex")}`));
  renameSync(path, higher);
  return higher;
}

/** False when `path` turned out to be a directory: not every file system says so in its listing. */
async function removeFile(path: Buffer): Promise<boolean> {
  try {
    await unlink(path).catch(ifMissing(undefined));
    return true;
  } catch (error) {
    if (errnoOf(error) === "EISDIR") return false;
    throw error;
  }
}

function beneath(directory: Buffer, name: Buffer): Buffer {
  return Buffer.concat([directory, Buffer.from("/"), name]);
}

/** For `catch`: `value` when the thing is already gone. */
function ifMissing<Value>(value: Value): (error: unknown) => Value {
  return (error) => {
    if (errnoOf(error) === "ENOENT") return value;
    throw error;
  };
}
