import { closeSync, fstatSync, ftruncateSync, openSync } from "node:fs";
import { dlopen, getInt32 } from "node:ffi";
import { promisify } from "node:util";
import { read, write } from "node:fs";
import { type Call, throwIfCancelled } from "../base/call.ts";
import { errnoFault, errnoName, hostFault } from "./errno.ts";
import { dataExtents } from "./sparse.ts";

/**
 * Memory with content that nobody can change any more, not even who may open it for writing: programs that do not trust
 * each other map it privately and share its pages until they write to them.
 */

const mfdCloexec = 0x1;
const mfdAllowSealing = 0x2;
const fAddSeals = 1033;
/** No more seals, no smaller, no larger, no writing. */
const allSeals = 0x1 | 0x2 | 0x4 | 0x8;

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  memfd_create: { arguments: ["string", "u32"], return: "i32" },
  fcntl: { arguments: ["i32", "i32", "i32"], return: "i32" },
});

const errnoAddress = libc.__errno_location();

const chunkBytes = 4 * 2 ** 20;

/** The content of the file at `path`, holes left as holes, as a descriptor of ours. */
export async function sealedCopy(path: string, name: string, call: Call): Promise<number> {
  const attempted = `copy ${path} to memory`;
  let source: number;
  try {
    source = openSync(path, "r");
  } catch (error) {
    throw hostFault(error, attempted);
  }
  const target = checked(libc.memfd_create(name, mfdCloexec | mfdAllowSealing), attempted);
  try {
    ftruncateSync(target, fstatSync(source).size);
    const chunk = Buffer.allocUnsafe(chunkBytes);
    for (const { offset, sizeBytes } of dataExtents(source)) {
      for (let at = offset; at < offset + sizeBytes;) {
        throwIfCancelled(call);
        const wanted = Math.min(chunkBytes, offset + sizeBytes - at);
        const { bytesRead } = await promisify(read)(source, chunk, 0, wanted, at);
        if (bytesRead === 0) break;
        await promisify(write)(target, chunk, 0, bytesRead, at);
        at += bytesRead;
      }
    }
    checked(libc.fcntl(target, fAddSeals, allSeals), attempted);
    return target;
  } catch (error) {
    closeSync(target);
    throw hostFault(error, attempted);
  } finally {
    closeSync(source);
  }
}

function checked(result: number, attempted: string): number {
  if (result !== -1) return result;
  throw errnoFault(errnoName(getInt32(errnoAddress)), attempted);
}
