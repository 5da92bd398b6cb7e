import { closeSync, constants, openSync } from "node:fs";
import { dlopen, getInt32 } from "node:ffi";
import { basename, dirname } from "node:path";
import { errnoFault, errnoName, hostFault } from "./errno.ts";

/** Unix sockets that listen and are handed to another program, which Node's own servers cannot be. Nothing here waits. */

const afUnix = 1;
const sockStream = 1;
const sockCloexec = 0o2000000;
/** `sun_path`, with its final NUL. */
const maxPathBytes = 108;

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  bind: { arguments: ["i32", "buffer", "u32"], return: "i32" },
  listen: { arguments: ["i32", "i32"], return: "i32" },
});

const errnoAddress = libc.__errno_location();

/** A socket at `path`, whose directory may be of any length, that listens. The caller closes it when it was handed on. */
export function listenUnixStream(path: string): number {
  const attempted = `listen at ${path}`;
  const directory = openDirectory(dirname(path), attempted);
  try {
    const name = Buffer.from(`/proc/self/fd/${directory}/${basename(path)}`);
    const address = Buffer.alloc(2 + maxPathBytes);
    if (name.length >= maxPathBytes) throw errnoFault("ENAMETOOLONG", attempted);
    new Uint16Array(address.buffer, address.byteOffset, 1)[0] = afUnix;
    name.copy(address, 2);
    const fd = checked(libc.socket(afUnix, sockStream | sockCloexec, 0), attempted);
    try {
      checked(libc.bind(fd, address, 2 + name.length + 1), attempted);
      checked(libc.listen(fd, 1), attempted);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  } finally {
    closeSync(directory);
  }
}

function openDirectory(path: string, attempted: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    throw hostFault(error, attempted);
  }
}

function checked(result: number, attempted: string): number {
  if (result !== -1) return result;
  throw errnoFault(errnoName(getInt32(errnoAddress)), attempted);
}
