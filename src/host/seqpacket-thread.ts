import { closeSync, openSync, readSync } from "node:fs";
import { basename, dirname } from "node:path";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { Fault } from "../base/fault.ts";
import { errnoOf } from "./errno.ts";
import { O_CLOEXEC, O_DIRECTORY, O_PATH } from "./kernel.ts";
import { POLLIN, POLLOUT, connectUnixSeqpacket, endSending, poll, receivePacket, sendPacket } from "./kernel-socket.ts";

/**
 * The one thread that waits for all packet sockets; `seqpacket.ts` starts it with the first and lets it end with the
 * last. It never returns to its event loop: it sleeps in poll(2), is woken by a socket or by the eventfd, and takes its
 * orders from the port by hand.
 */

export type Order =
  | { readonly kind: "connect"; readonly id: number; readonly path: string }
  | { readonly kind: "send"; readonly id: number; readonly packet: Uint8Array; readonly ticket: number }
  | { readonly kind: "end"; readonly id: number }
  | { readonly kind: "close"; readonly id: number }
  /** The consumer took this much: as much may be read again. */
  | { readonly kind: "taken"; readonly id: number; readonly sizeBytes: number }
  | { readonly kind: "quit" };

export type Report =
  | { readonly kind: "connected"; readonly id: number }
  | { readonly kind: "packet"; readonly id: number; readonly packet: Uint8Array }
  | { readonly kind: "sent"; readonly id: number; readonly ticket: number }
  /** The peer takes nothing any more; what it said before may still come. */
  | { readonly kind: "unsent"; readonly id: number; readonly ticket: number; readonly fault: FaultData }
  /** Nothing more comes from this one. Without a fault the peer closed. */
  | { readonly kind: "ended"; readonly id: number; readonly fault?: FaultData };

export interface FaultData {
  readonly reason: Fault["reason"];
  readonly message: string;
  readonly detail: Fault["detail"];
}

export interface ThreadData {
  readonly wakeFd: number;
  /** Its first element becomes 1 when the process exits, which waits for this thread. */
  readonly exiting: Int32Array;
}

interface Socket {
  readonly id: number;
  readonly fd: number;
  /** What the peer has not taken yet; undefined stands for the end. */
  readonly outgoing: ({ readonly packet: Uint8Array; readonly ticket: number } | undefined)[];
  /** Read from the socket and not yet taken by the consumer. */
  pendingBytes: number;
}

/** A slow consumer makes us stop reading here, so that it slows the peer instead of filling our memory. */
const maxPendingBytes = 4 * 2 ** 20;
const maxPacketBytes = 64 * 1024;

const { wakeFd, exiting } = workerData as ThreadData;
const sockets = new Map<number, Socket>();
const incoming = new Uint8Array(maxPacketBytes);
const wakeCount = new Uint8Array(8);

function report(message: Report, transfer: readonly ArrayBuffer[] = []): void {
  parentPort?.postMessage(message, [...transfer]);
}

/** The main loop; ends when it is told to quit. */
function serve(): void {
  for (;;) {
    const open = [...sockets.values()];
    const ready = poll([{ fd: wakeFd, events: POLLIN }, ...open.map(wanted)]);
    if (Atomics.load(exiting, 0) === 1) return;
    if (ready[0] !== 0 && !takeOrders()) return;
    for (const [index, socket] of open.entries()) {
      // An order just taken may have closed it.
      if (sockets.get(socket.id) === socket && (ready[index + 1] ?? 0) !== 0) serveSocket(socket);
    }
  }
}

function wanted(socket: Socket): { fd: number; events: number } {
  const reads = socket.pendingBytes < maxPendingBytes ? POLLIN : 0;
  const writes = socket.outgoing.length > 0 ? POLLOUT : 0;
  // A peer that hung up would make poll return at once, over and over; while its packets may not be read, look away.
  return { fd: reads + writes === 0 ? -1 : socket.fd, events: reads | writes };
}

/** False when told to quit. */
function takeOrders(): boolean {
  readSync(wakeFd, wakeCount);
  if (parentPort === null) return false;
  for (;;) {
    const received: { message: Order } | undefined = receiveMessageOnPort(parentPort);
    if (received === undefined) return true;
    if (received.message.kind === "quit") return false;
    obey(received.message);
  }
}

function obey(order: Exclude<Order, { kind: "quit" }>): void {
  if (order.kind === "connect") {
    connect(order.id, order.path);
    return;
  }
  const socket = sockets.get(order.id);
  if (socket === undefined) return;
  if (order.kind === "send") socket.outgoing.push({ packet: order.packet, ticket: order.ticket });
  else if (order.kind === "end") socket.outgoing.push(undefined);
  else if (order.kind === "taken") socket.pendingBytes -= order.sizeBytes;
  else forget(socket);
}

function connect(id: number, path: string): void {
  try {
    // A socket's address has room for 107 bytes; by the directory's descriptor every path is short.
    const directory = openSync(dirname(path), O_PATH | O_DIRECTORY | O_CLOEXEC);
    try {
      const fd = connectUnixSeqpacket(`/proc/self/fd/${directory}/${basename(path)}`, path);
      sockets.set(id, { id, fd, outgoing: [], pendingBytes: 0 });
    } finally {
      closeSync(directory);
    }
    report({ kind: "connected", id });
  } catch (error) {
    report({ kind: "ended", id, fault: faultData(error, `connect to ${path}`) });
  }
}

function serveSocket(socket: Socket): void {
  try {
    flush(socket);
    while (socket.pendingBytes < maxPendingBytes) {
      const sizeBytes = receive(socket);
      if (sizeBytes === undefined) return;
      if (sizeBytes === 0) {
        forget(socket);
        report({ kind: "ended", id: socket.id });
        return;
      }
      socket.pendingBytes += sizeBytes;
      const packet = incoming.slice(0, sizeBytes);
      report({ kind: "packet", id: socket.id, packet }, [packet.buffer]);
    }
  } catch (error) {
    forget(socket);
    report({ kind: "ended", id: socket.id, fault: faultData(error, "attached socket") });
  }
}

function receive({ fd }: Socket): number | undefined {
  try {
    return receivePacket(fd, incoming);
  } catch (error) {
    // It closed without having read all. The kernel tells that once, and before what it said itself.
    if (errnoOf(error) !== "ECONNRESET") throw error;
    return receivePacket(fd, incoming);
  }
}

function flush(socket: Socket): void {
  while (socket.outgoing.length > 0) {
    const [next] = socket.outgoing;
    if (next === undefined) endSending(socket.fd);
    else if (!flushPacket(socket, next)) return;
    socket.outgoing.shift();
  }
}

/** False when the peer has not read enough yet. One that reads no more is told of, and is still listened to. */
function flushPacket({ id, fd }: Socket, { packet, ticket }: { packet: Uint8Array; ticket: number }): boolean {
  try {
    if (!sendPacket(fd, packet)) return false;
    report({ kind: "sent", id, ticket });
  } catch (error) {
    report({ kind: "unsent", id, ticket, fault: faultData(error, "attached socket") });
  }
  return true;
}

function forget(socket: Socket): void {
  sockets.delete(socket.id);
  closeSync(socket.fd);
}

function faultData(error: unknown, attempted: string): FaultData {
  const { reason, message, detail } = Fault.from(error, attempted);
  return { reason, message, detail };
}

serve();
for (const socket of sockets.values()) closeSync(socket.fd);
