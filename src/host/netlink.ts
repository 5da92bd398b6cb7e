import { closeSync } from "node:fs";
import { dlopen, getInt32 } from "node:ffi";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoName } from "./errno.ts";

/**
 * Netlink: the messages by which the kernel's network is asked and changed, and a socket for them.
 *
 * Everything is synchronous on purpose. The kernel answers inside `send(2)`, so an answer is already queued when `recv`
 * asks for it; a call takes microseconds, where starting a program such as `ip` takes milliseconds. Numbers are in the
 * machine's own byte order, which is little-endian on every architecture that Node runs Croft on.
 */

/** One attribute. A list of attributes as value makes it a nested one. */
export interface Attribute {
  readonly type: number;
  readonly value: Uint8Array | readonly Attribute[];
}

export interface Message {
  /** `RTM_NEWLINK` and the like; for netfilter the subsystem in the high byte. */
  readonly type: number;
  /** `NLM_F_…`; the socket adds `NLM_F_REQUEST` and, where an answer is awaited, `NLM_F_ACK`. */
  readonly flags: number;
  /** The fixed structure between the netlink header and the attributes, such as `struct ifinfomsg`. */
  readonly header: Uint8Array;
  readonly attributes: readonly Attribute[];
}

/** A message to send, and what it is for, in words for the Fault: `create bridge croft-1a2b3c4`. */
export interface Request {
  readonly message: Message;
  readonly attempted: string;
  /** Errnos that mean "it is so already": `["EEXIST"]` when creating, `["ENODEV"]` when removing. */
  readonly accept?: readonly string[];
}

export interface Received {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** What follows the netlink header: fixed structure, then attributes. */
  readonly payload: Buffer;
}

export const NETLINK_ROUTE = 0;
const NETLINK_NETFILTER = 12;

const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;

const nlmsgError = 2;
const nlmsgDone = 3;
const messageHeaderBytes = 16;
const attributeHeaderBytes = 4;
const nestedFlag = 0x8000;
const attributeTypeMask = 0x3fff;
/** In an answer: the part of the request that is echoed before the kernel's own words was left out. */
const flagCapped = 0x100;
const flagExtendedAck = 0x200;
const extendedAckMessage = 1;

export function encodeMessage(message: Message, flags: number, sequence: number): Buffer {
  const attributes = encodeAttributes(message.attributes);
  const bodyBytes = aligned(message.header.length);
  const buffer = Buffer.alloc(messageHeaderBytes + bodyBytes + attributes.length);
  buffer.writeUInt32LE(buffer.length, 0);
  buffer.writeUInt16LE(message.type, 4);
  buffer.writeUInt16LE(message.flags | flags, 6);
  buffer.writeUInt32LE(sequence, 8);
  buffer.set(message.header, messageHeaderBytes);
  buffer.set(attributes, messageHeaderBytes + bodyBytes);
  return buffer;
}

/** The messages in what one `recv` returned. Throws `corrupt` when a length leads out of it. */
export function decodeMessages(bytes: Buffer): Received[] {
  const messages: Received[] = [];
  let offset = 0;
  while (offset + messageHeaderBytes <= bytes.length) {
    const length = bytes.readUInt32LE(offset);
    if (length < messageHeaderBytes || offset + length > bytes.length) {
      throw new Fault("corrupt", `a netlink message of ${length} bytes does not fit in ${bytes.length - offset}`);
    }
    messages.push({
      type: bytes.readUInt16LE(offset + 4),
      flags: bytes.readUInt16LE(offset + 6),
      sequence: bytes.readUInt32LE(offset + 8),
      payload: bytes.subarray(offset + messageHeaderBytes, offset + length),
    });
    offset += aligned(length);
  }
  return messages;
}

export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const { type, value } of attributes) {
    const nested = !(value instanceof Uint8Array);
    const content = nested ? encodeAttributes(value) : value;
    const length = attributeHeaderBytes + content.length;
    const buffer = Buffer.alloc(aligned(length));
    buffer.writeUInt16LE(length, 0);
    buffer.writeUInt16LE(nested ? type | nestedFlag : type, 2);
    buffer.set(content, attributeHeaderBytes);
    parts.push(buffer);
  }
  return Buffer.concat(parts);
}

/** Attributes by type, the last one where a type comes twice. Throws `corrupt` when a length leads out of `bytes`. */
export function decodeAttributes(bytes: Buffer): ReadonlyMap<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  let offset = 0;
  while (offset + attributeHeaderBytes <= bytes.length) {
    const length = bytes.readUInt16LE(offset);
    if (length < attributeHeaderBytes || offset + length > bytes.length) {
      throw new Fault("corrupt", `a netlink attribute of ${length} bytes does not fit in ${bytes.length - offset}`);
    }
    const type = bytes.readUInt16LE(offset + 2) & attributeTypeMask;
    attributes.set(type, bytes.subarray(offset + attributeHeaderBytes, offset + length));
    offset += aligned(length);
  }
  return attributes;
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

export function u16be(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value & 0xff);
}

export function u32(value: number): Uint8Array {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value >>> 0);
  return buffer;
}

/** A string with its final NUL, as the kernel wants names. */
export function text(value: string): Uint8Array {
  return Buffer.from(`${value}\0`, "utf8");
}

/** The string in an attribute, without its final NUL. */
export function readText(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end === -1 ? bytes.length : end);
}

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  setsockopt: { arguments: ["i32", "i32", "i32", "buffer", "u32"], return: "i32" },
  send: { arguments: ["i32", "buffer", "u64", "i32"], return: "i64" },
  recv: { arguments: ["i32", "buffer", "u64", "i32"], return: "i64" },
});

const addressFamilyNetlink = 16;
const sockRawCloexec = 3 | 0o2000000;
const solNetlink = 270;
const solSocket = 1;
const optionCapAck = 10;
const optionExtendedAck = 11;
const optionReceiveTimeout = 20;
/** The kernel cuts dumps into parts of at most 32 KiB when the reader's buffer is that large. */
const receiveBytes = 64 * 1024;
/** An answer is there before it is asked for; only a defect of ours can make us wait, and then not for ever. */
const receiveTimeoutSeconds = 5n;

/** Shared by all sockets: each answer is decoded into values before the next one is received. */
const receiveBuffer = Buffer.alloc(receiveBytes);

/**
 * A netlink socket. It belongs to the network namespace it was opened in for as long as it lives, whichever one the
 * thread is in later: to work in another namespace, open one there and use it from here.
 */
export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  #sequence = 0;
  #open = true;

  constructor(protocol: number) {
    this.#fd = checked(libc.socket(addressFamilyNetlink, sockRawCloexec, protocol), "open a netlink socket");
    const one = u32(1);
    const timeout = new Uint8Array(new BigInt64Array([receiveTimeoutSeconds, 0n]).buffer);
    try {
      checked(libc.setsockopt(this.#fd, solNetlink, optionCapAck, one, one.length), "set up a netlink socket");
      checked(libc.setsockopt(this.#fd, solNetlink, optionExtendedAck, one, one.length), "set up a netlink socket");
      checked(
        libc.setsockopt(this.#fd, solSocket, optionReceiveTimeout, timeout, timeout.length),
        "set up a netlink socket",
      );
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Has the kernel do `request`; throws a Fault with the errno and the kernel's own words when it refuses. */
  do(request: Request): void {
    this.doAll([request]);
  }

  /**
   * Has the kernel do all of them in this order, in one system call. It goes on after a refused one; the first refusal
   * is thrown at the end.
   */
  doAll(requests: readonly Request[]): void {
    if (requests.length === 0) return;
    const first = this.#sequence + 1;
    const waiting = new Map<number, Request>();
    const encoded = requests.map((request) => {
      this.#sequence += 1;
      waiting.set(this.#sequence, request);
      return encodeMessage(request.message, NLM_F_REQUEST | NLM_F_ACK, this.#sequence);
    });
    this.#send(Buffer.concat(encoded), requests[0]?.attempted ?? "");
    let refusal: Fault | undefined;
    while (waiting.size > 0) {
      for (const message of this.#receive(requests[0]?.attempted ?? "")) {
        const request = waiting.get(message.sequence);
        // Left over from an exchange that was given up.
        if (request === undefined || message.sequence < first || message.type !== nlmsgError) continue;
        waiting.delete(message.sequence);
        const fault = refusalOf(message, request);
        refusal ??= fault;
      }
    }
    if (refusal !== undefined) throw refusal;
  }

  /** The one answer to a question about one thing; undefined when the kernel answers with an accepted errno. */
  ask(request: Request): Received | undefined {
    return this.#collect(request, NLM_F_REQUEST | NLM_F_ACK)[0];
  }

  /** Every entry of a list of the kernel. */
  dump(request: Request): Received[] {
    for (let attempt = 0; ; attempt += 1) {
      const { entries, interrupted } = this.#collectAll(request, NLM_F_REQUEST | NLM_F_DUMP);
      // The list changed while it was read; what was read may be incomplete.
      if (!interrupted || attempt === 8) return entries;
    }
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }

  #collect(request: Request, flags: number): Received[] {
    return this.#collectAll(request, flags).entries;
  }

  #collectAll(request: Request, flags: number): { entries: Received[]; interrupted: boolean } {
    this.#sequence += 1;
    const sequence = this.#sequence;
    this.#send(encodeMessage(request.message, flags, sequence), request.attempted);
    const entries: Received[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive(request.attempted)) {
        if (message.sequence !== sequence) continue;
        const dumpInterruptedFlag = 0x10;
        interrupted ||= (message.flags & dumpInterruptedFlag) !== 0;
        if (message.type === nlmsgDone) return { entries, interrupted };
        if (message.type === nlmsgError) {
          const fault = refusalOf(message, request);
          if (fault !== undefined) throw fault;
          return { entries, interrupted };
        }
        entries.push({ ...message, payload: Buffer.from(message.payload) });
      }
    }
  }

  #send(bytes: Buffer, attempted: string): void {
    checked(Number(libc.send(this.#fd, bytes, BigInt(bytes.length), 0)), attempted);
  }

  #receive(attempted: string): Received[] {
    const length = checked(Number(libc.recv(this.#fd, receiveBuffer, BigInt(receiveBytes), 0)), attempted);
    return decodeMessages(receiveBuffer.subarray(0, length));
  }
}

let netfilter: NetlinkSocket | undefined;

/**
 * The one socket to netfilter, in the namespace that this process was in when it was first needed. It is never closed:
 * after a change of rules, closing any such socket waits until no processor can see the old rules, some 10 ms.
 */
export function netfilterSocket(): NetlinkSocket {
  netfilter ??= new NetlinkSocket(NETLINK_NETFILTER);
  return netfilter;
}

function refusalOf(message: Received, request: Request): Fault | undefined {
  const code = -message.payload.readInt32LE(0);
  if (code === 0) return undefined;
  const errno = errnoName(code);
  if (request.accept?.includes(errno) === true) return undefined;
  const words = kernelWords(message);
  return errnoFault(errno, words === undefined ? request.attempted : `${request.attempted} (${words})`);
}

function kernelWords(message: Received): string | undefined {
  if ((message.flags & flagExtendedAck) === 0) return undefined;
  // The answer is the errno, the header of the request and, unless capped, the whole request.
  const errnoBytes = 4;
  const echoedBytes =
    (message.flags & flagCapped) === 0 ? aligned(message.payload.readUInt32LE(errnoBytes)) : messageHeaderBytes;
  const words = decodeAttributes(message.payload.subarray(errnoBytes + echoedBytes)).get(extendedAckMessage);
  return words === undefined ? undefined : readText(words);
}

/** Where this thread's errno is; the address belongs to the thread. */
const errnoAddress = libc.__errno_location();

function checked(result: number, attempted: string): number {
  if (result >= 0) return result;
  throw errnoFault(errnoName(getInt32(errnoAddress)), attempted);
}
