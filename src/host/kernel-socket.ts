import { dlopen, getInt32 } from "node:ffi";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoName } from "./errno.ts";

/**
 * Unix sockets of type SOCK_SEQPACKET, which Node cannot speak, and waiting for them. See `kernel.ts` for the rules; only
 * the thread of `seqpacket-thread.ts` calls what waits.
 */

export const POLLIN = 0x1;
export const POLLOUT = 0x4;

const afUnix = 1;
const sockSeqpacket = 5;
const sockNonblock = 0o4000;
const sockCloexec = 0o2000000;
const msgTrunc = 0x20;
const msgNosignal = 0x4000;
const shutWrite = 1;
const efdNonblock = 0o4000;
const efdCloexec = 0o2000000;
/** `sun_path`, with its final NUL. */
const maxPathBytes = 108;

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  connect: { arguments: ["i32", "buffer", "u32"], return: "i32" },
  send: { arguments: ["i32", "buffer", "u64", "i32"], return: "i64" },
  recv: { arguments: ["i32", "buffer", "u64", "i32"], return: "i64" },
  shutdown: { arguments: ["i32", "i32"], return: "i32" },
  poll: { arguments: ["buffer", "u64", "i32"], return: "i32" },
  eventfd: { arguments: ["u32", "i32"], return: "i32" },
  close: { arguments: ["i32"], return: "i32" },
});

const errnoAddress = libc.__errno_location();

/** `result`, or undefined when the call would have waited or was interrupted, or a Fault. */
function tried(result: number | bigint, attempted: string): number | undefined {
  if (Number(result) !== -1) return Number(result);
  const errno = errnoName(getInt32(errnoAddress));
  if (errno === "EAGAIN" || errno === "EINTR") return undefined;
  throw errnoFault(errno, attempted);
}

/** A descriptor that one thread writes eight bytes to so that another, which polls it, wakes. */
export function createEventfd(): number {
  const fd = tried(libc.eventfd(0, efdNonblock | efdCloexec), "create an eventfd");
  if (fd === undefined) throw new Fault("bug", "eventfd does not wait");
  return fd;
}

/**
 * A connected, non-blocking socket; `shown` is the path that messages name. `unavailable` when nobody listens or too
 * many wait there already.
 */
export function connectUnixSeqpacket(path: string, shown: string): number {
  const attempted = `connect to ${shown}`;
  const name = Buffer.from(path);
  if (name.length >= maxPathBytes || name.includes(0)) throw new Fault("invalid", `${attempted}: not a socket's path`);
  const address = Buffer.alloc(2 + maxPathBytes);
  new Uint16Array(address.buffer, address.byteOffset, 1)[0] = afUnix;
  name.copy(address, 2);
  const fd = tried(libc.socket(afUnix, sockSeqpacket | sockNonblock | sockCloexec, 0), attempted);
  if (fd === undefined) throw new Fault("bug", "socket does not wait");
  try {
    if (tried(libc.connect(fd, address, 2 + name.length + 1), attempted) === undefined) {
      throw new Fault("unavailable", `${attempted}: too many are waiting to connect`);
    }
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** False when the peer has not read enough yet: poll for `POLLOUT` and send it again. */
export function sendPacket(fd: number, packet: Uint8Array): boolean {
  return tried(libc.send(fd, packet, BigInt(packet.length), msgNosignal), "send a packet") !== undefined;
}

/** The next packet's size, its bytes in `into`; 0 when the peer has closed; undefined when there is none yet. */
export function receivePacket(fd: number, into: Uint8Array): number | undefined {
  const sizeBytes = tried(libc.recv(fd, into, BigInt(into.length), msgTrunc), "receive a packet");
  if (sizeBytes !== undefined && sizeBytes > into.length) {
    throw new Fault("exhausted", `receive a packet: it has ${sizeBytes} bytes, more than ${into.length}`);
  }
  return sizeBytes;
}

/** Tells the peer that no more comes from us; it may go on sending. */
export function endSending(fd: number): void {
  tried(libc.shutdown(fd, shutWrite), "end sending");
}

/** Waits until one of these is ready; returns what is, in the same order (`POLLERR` and `POLLHUP` included). */
export function poll(wanted: readonly { readonly fd: number; readonly events: number }[]): number[] {
  // struct pollfd: int fd, short events, short revents.
  const fds = new ArrayBuffer(8 * wanted.length);
  const numbers = new Int32Array(fds);
  const masks = new Int16Array(fds);
  for (const [index, { fd, events }] of wanted.entries()) {
    numbers[index * 2] = fd;
    masks[index * 4 + 2] = events;
  }
  tried(libc.poll(new Uint8Array(fds), BigInt(wanted.length), -1), "wait for sockets");
  return wanted.map((_, index) => masks[index * 4 + 3] ?? 0);
}
