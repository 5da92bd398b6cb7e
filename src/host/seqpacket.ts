import { closeSync, writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { type Call, type Clock, throwIfCancelled } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { createEventfd } from "./kernel-socket.ts";
import type { FaultData, Order, Report, ThreadData } from "./seqpacket-thread.ts";

/**
 * Unix sockets of type SOCK_SEQPACKET: conmon's attach socket. Node has no such socket, so one thread waits for all of
 * them. It starts with the first connection and ends a while after the last.
 */
export interface PacketConnection {
  /** What the peer sends, packet by packet, until it closes; for one reader. Not reading slows the peer down. */
  readonly packets: AsyncIterable<Uint8Array>;
  /**
   * Sends one packet; resolves when the kernel has it. conmon takes at most 32 KiB at once. Throws when the peer takes no
   * more; what it said before that is still in `packets`.
   */
  send(packet: Uint8Array): Promise<void>;
  /** No more is sent; what was sent before still arrives, and the peer may go on sending. */
  end(): void;
  /** Ends both directions at once. Safe to call again. */
  close(): void;
}

/**
 * Starting the thread takes longer than starting a container, and commands that are run one after the other, as scripts
 * do, need it each time: it stays this long after its last connection. It is some 10 MiB.
 */
const lingerMs = 5_000;

/** Starts the thread, for whoever knows that a connection will be made soon and has other things to wait for meanwhile. */
export function expectConnection(call: Call): void {
  Thread.current(call.clock);
}

/** Connects to the socket at `path`, of any length. Cancelling the call closes the connection, also later. */
export async function connectSeqpacket(path: string, call: Call): Promise<PacketConnection> {
  throwIfCancelled(call);
  const connection = new Connection(call);
  await connection.open(path);
  return connection;
}

class Connection implements PacketConnection {
  readonly #call: Call;
  readonly #thread: Thread;
  readonly #id: number;
  readonly #received: Uint8Array[] = [];
  readonly #tickets = new Map<number, { resolve: () => void; reject: (fault: Fault) => void }>();
  readonly #onAbort = (): void => this.close();
  #lastTicket = 0;
  #opened: { resolve: () => void; reject: (fault: Fault) => void } | undefined;
  #wakeReader: (() => void) | undefined;
  #ended = false;
  #fault: Fault | undefined;

  constructor(call: Call) {
    this.#call = call;
    this.#thread = Thread.current(call.clock);
    this.#id = this.#thread.add((report) => this.#take(report));
  }

  open(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#opened = { resolve, reject };
      this.#call.signal.addEventListener("abort", this.#onAbort, { once: true });
      this.#thread.order({ kind: "connect", id: this.#id, path });
    });
  }

  get packets(): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => this.#read() };
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const packet = this.#received.shift();
      if (packet !== undefined) {
        if (!this.#ended) this.#thread.order({ kind: "taken", id: this.#id, sizeBytes: packet.length });
        yield packet;
        continue;
      }
      if (this.#fault !== undefined) throw this.#fault;
      if (this.#ended) return;
      await new Promise<void>((resolve) => (this.#wakeReader = resolve));
    }
  }

  send(packet: Uint8Array): Promise<void> {
    if (this.#ended) return Promise.reject(this.#fault ?? new Fault("unavailable", "the connection has ended"));
    const ticket = (this.#lastTicket += 1);
    return new Promise((resolve, reject) => {
      this.#tickets.set(ticket, { resolve, reject });
      this.#thread.order({ kind: "send", id: this.#id, packet, ticket });
    });
  }

  end(): void {
    if (!this.#ended) this.#thread.order({ kind: "end", id: this.#id });
  }

  close(): void {
    if (this.#ended) return;
    this.#thread.order({ kind: "close", id: this.#id });
    const cancelled = this.#call.signal.aborted ? new Fault("cancelled", "the connection was cancelled") : undefined;
    this.#finish(cancelled);
  }

  #take(report: Report): void {
    if (report.kind === "connected") {
      this.#opened?.resolve();
      this.#opened = undefined;
    } else if (report.kind === "packet") {
      this.#received.push(report.packet);
      this.#wake();
    } else if (report.kind === "sent") {
      this.#tickets.get(report.ticket)?.resolve();
      this.#tickets.delete(report.ticket);
    } else if (report.kind === "unsent") {
      this.#tickets.get(report.ticket)?.reject(faultOf(report.fault));
      this.#tickets.delete(report.ticket);
    } else {
      this.#finish(report.fault && faultOf(report.fault));
    }
  }

  #finish(fault: Fault | undefined): void {
    this.#ended = true;
    this.#fault = fault;
    this.#thread.remove(this.#id);
    this.#call.signal.removeEventListener("abort", this.#onAbort);
    const end = fault ?? new Fault("unavailable", "the connection has ended");
    this.#opened?.reject(end);
    this.#opened = undefined;
    for (const { reject } of this.#tickets.values()) reject(end);
    this.#tickets.clear();
    this.#wake();
  }

  #wake(): void {
    this.#wakeReader?.();
    this.#wakeReader = undefined;
  }
}

/** This side of the thread: who is connected by it, and the eventfd that wakes it. */
class Thread {
  static #current: Thread | undefined;
  static #lastId = 0;

  readonly #wakeFd = createEventfd();
  readonly #exiting = new Int32Array(new SharedArrayBuffer(4));
  readonly #takers = new Map<number, (report: Report) => void>();
  readonly #worker: Worker;
  readonly #clock: Clock;
  #cancelEnd: (() => void) | undefined;
  #gone = false;
  /** The process waits for its threads when it exits, and this one sleeps in the kernel. */
  readonly #onExit = (): void => {
    Atomics.store(this.#exiting, 0, 1);
    this.#wake();
  };

  constructor(clock: Clock) {
    this.#clock = clock;
    const workerData: ThreadData = { wakeFd: this.#wakeFd, exiting: this.#exiting };
    // Flags of the process are not for it; and Node warns about descriptors that it did not open, as these are.
    const execArgv = ["--disable-warning=ExperimentalWarning"];
    const options = { workerData, execArgv, trackUnmanagedFds: false };
    this.#worker = new Worker(new URL("./seqpacket-thread.ts", import.meta.url), options);
    this.#worker.on("message", (report: Report) => this.#takers.get(report.id)?.(report));
    this.#worker.on("error", (error) => this.#fail(error));
    this.#worker.on("exit", () => {
      this.#gone = true;
      process.off("exit", this.#onExit);
      closeSync(this.#wakeFd);
    });
    process.on("exit", this.#onExit);
    this.#linger();
  }

  static current(clock: Clock): Thread {
    Thread.#current ??= new Thread(clock);
    return Thread.#current;
  }

  add(take: (report: Report) => void): number {
    Thread.#lastId += 1;
    this.#takers.set(Thread.#lastId, take);
    this.#cancelEnd?.();
    this.#worker.ref();
    return Thread.#lastId;
  }

  remove(id: number): void {
    this.#takers.delete(id);
    if (this.#takers.size === 0 && Thread.#current === this) this.#linger();
  }

  /** Ends when nobody connects for a while; until then it keeps no process from ending. */
  #linger(): void {
    this.#worker.unref();
    this.#cancelEnd = this.#clock.after(lingerMs, () => {
      if (Thread.#current === this) Thread.#current = undefined;
      this.order({ kind: "quit" });
    });
  }

  order(order: Order): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is for windows of a browser
    this.#worker.postMessage(order);
    this.#wake();
  }

  #wake(): void {
    // Its number may already mean another file.
    if (this.#gone) return;
    writeSync(this.#wakeFd, one);
  }

  #fail(error: unknown): void {
    const { reason, message, detail } = Fault.from(error, "packet sockets");
    if (Thread.#current === this) Thread.#current = undefined;
    this.#cancelEnd?.();
    for (const [id, take] of this.#takers) take({ kind: "ended", id, fault: { reason, message, detail } });
  }
}

/** What an eventfd takes: a 64-bit count in the machine's byte order. */
const one = new Uint8Array(new BigUint64Array([1n]).buffer);

function faultOf({ reason, message, detail }: FaultData): Fault {
  return new Fault(reason, message, { detail });
}
