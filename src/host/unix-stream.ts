import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { dlopen, getInt32, getRawPointer } from "node:ffi";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoName, hostFault } from "./errno.ts";
import { O_PATH } from "./kernel.ts";

/**
 * Unix stream sockets that carry open descriptors, which Node's own do not: QEMU takes taps and disks that way, so that
 * it needs no right to open anything. See `kernel.ts` for the rules; nothing here waits.
 */

const afUnix = 1;
const sockStream = 1;
const sockNonblock = 0o4000;
const sockCloexec = 0o2000000;
const solSocket = 1;
const scmRights = 1;
const msgNosignal = 0x4000;
/** `sun_path`, with its final NUL. */
const maxPathBytes = 108;
/** What the kernel takes in one message. */
const maxDescriptors = 253;

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  connect: { arguments: ["i32", "buffer", "u32"], return: "i32" },
  sendmsg: { arguments: ["i32", "buffer", "i32"], return: "i64" },
  close: { arguments: ["i32"], return: "i32" },
});

const errnoAddress = libc.__errno_location();

/**
 * A connected, non-blocking socket, to be wrapped as `new Socket({ fd })`. The last part of `path` is not followed when
 * it is a link: who owns the directory cannot lead us to somebody else's socket. The path may be of any length.
 * `unavailable` when nobody listens or too many wait there already; `not-found` when there is no such socket.
 */
export function connectUnixStream(path: string): number {
  const attempted = `connect to ${path}`;
  const place = openPath(path, attempted);
  try {
    if (!fstatSync(place).isSocket()) throw new Fault("hostile", `${attempted}: it is no socket`);
    const name = Buffer.from(`/proc/self/fd/${place}`);
    const address = Buffer.alloc(2 + maxPathBytes);
    new Uint16Array(address.buffer, address.byteOffset, 1)[0] = afUnix;
    name.copy(address, 2);
    const fd = checked(libc.socket(afUnix, sockStream | sockNonblock | sockCloexec, 0), attempted);
    if (libc.connect(fd, address, 2 + name.length + 1) === 0) return fd;
    const errno = errnoName(getInt32(errnoAddress));
    libc.close(fd);
    if (errno === "EAGAIN") throw new Fault("unavailable", `${attempted}: too many are waiting to connect`);
    throw errnoFault(errno, attempted);
  } finally {
    closeSync(place);
  }
}

/** Sends these bytes, all of them, with duplicates of these descriptors of ours. Small messages only. */
export function sendWithDescriptors(fd: number, bytes: Uint8Array, descriptors: readonly number[]): void {
  const attempted = "send descriptors";
  if (descriptors.length > maxDescriptors) throw new Fault("invalid", `${attempted}: more than ${maxDescriptors}`);
  const data = Uint8Array.from(bytes);
  // struct cmsghdr { size_t len; int level; int type; int fds[]; }, as a whole padded to the size of a pointer.
  const lengthBytes = 16 + 4 * descriptors.length;
  const control = new Uint8Array(Math.ceil(lengthBytes / 8) * 8);
  const header = new DataView(control.buffer);
  header.setBigUint64(0, BigInt(lengthBytes), littleEndian);
  header.setInt32(8, solSocket, littleEndian);
  header.setInt32(12, scmRights, littleEndian);
  descriptors.forEach((descriptor, index) => header.setInt32(16 + 4 * index, descriptor, littleEndian));
  const vector = new BigUint64Array([getRawPointer(data), BigInt(data.length)]);
  // struct msghdr: name, its length; vectors, their number; control, its length; flags.
  const message = new BigUint64Array([
    0n,
    0n,
    getRawPointer(vector),
    1n,
    getRawPointer(control),
    BigInt(control.length),
    0n,
  ]);
  const sent = checked(Number(libc.sendmsg(fd, message, msgNosignal)), attempted);
  if (sent !== data.length) throw new Fault("exhausted", `${attempted}: the peer does not read`);
}

function openPath(path: string, attempted: string): number {
  try {
    return openSync(path, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    throw hostFault(error, attempted);
  }
}

function checked(result: number, attempted: string): number {
  if (result !== -1) return result;
  throw errnoFault(errnoName(getInt32(errnoAddress)), attempted);
}

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
