import type { Socket } from "node:net";
import type { Target } from "./target.ts";

/** A connection to the daemon: bytes both ways, and nothing known of what they mean. */
export interface Wire {
  /** Takes all of it. False: whoever has more to send waits until it is `drained`. */
  write(bytes: Uint8Array): boolean;
  /** No more `data` until `resume`. */
  pause(): void;
  resume(): void;
  /** Ends it at once. The listener hears of nothing any more. */
  destroy(): void;
}

export interface WireListener {
  data(bytes: Uint8Array): void;
  drained(): void;
  /** The last that is heard. Without an error the other side has said all that it wanted to. */
  closed(error?: Error): void;
}

/** Connects; what is written meanwhile is sent then. A failure to connect is told by `closed`. */
export function openWire(target: Target, listener: WireListener): Wire {
  const { Bun: bun } = globalThis as { readonly Bun?: BunRuntime };
  // The command line is compiled with a runtime whose own sockets start in a tenth of the time of Node's.
  if (bun !== undefined && target.kind === "unix") return new BunWire(bun, target.socketPath, listener);
  return new NodeWire(connectionTo(target), listener);
}

/** Loaded when it is needed: each of these modules takes milliseconds. */
function connectionTo(target: Target): Socket {
  if (target.kind === "unix") return process.getBuiltinModule("node:net").connect(target.socketPath);
  const { hostname, port, protocol } = target.url;
  const host = hostname.replace(/^\[|\]$/g, "");
  if (protocol === "http:") {
    return process.getBuiltinModule("node:net").connect({ host, port: Number(port || "80"), noDelay: true });
  }
  const { connect } = process.getBuiltinModule("node:tls");
  const isAddress = process.getBuiltinModule("node:net").isIP(host) !== 0;
  // An address is no name that a certificate could be asked for by.
  return connect({ host, port: Number(port || "443"), ...(isAddress ? {} : { servername: host }) });
}

class NodeWire implements Wire {
  readonly #socket: Socket;

  constructor(socket: Socket, listener: WireListener) {
    this.#socket = socket;
    let failure: Error | undefined;
    socket.on("data", (bytes: string | Uint8Array) => listener.data(bytes as Uint8Array));
    socket.on("drain", () => listener.drained());
    socket.on("error", (error) => (failure ??= error));
    socket.on("close", () => listener.closed(failure));
  }

  write(bytes: Uint8Array): boolean {
    return this.#socket.write(bytes);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  destroy(): void {
    this.#socket.removeAllListeners().on("error", () => {});
    this.#socket.destroy();
  }
}

/** What is used here of the runtime's own sockets. */
interface BunRuntime {
  connect(options: {
    readonly unix: string;
    readonly socket: {
      open(socket: BunSocket): void;
      data(socket: BunSocket, bytes: Uint8Array): void;
      drain(socket: BunSocket): void;
      close(socket: BunSocket, error?: Error): void;
      error(socket: BunSocket, error: Error): void;
      connectError(socket: BunSocket, error: Error): void;
    };
  }): Promise<unknown>;
}

interface BunSocket {
  /** How many bytes it took; -1 when it is closed. */
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  terminate(): void;
}

class BunWire implements Wire {
  #socket: BunSocket | undefined;
  #listener: WireListener | undefined;
  /** Not taken by the socket yet. */
  #unsent: Uint8Array[] = [];

  constructor(bun: BunRuntime, socketPath: string, listener: WireListener) {
    this.#listener = listener;
    let failure: Error | undefined;
    const connecting = bun.connect({
      unix: socketPath,
      socket: {
        open: (socket) => {
          this.#socket = socket;
          if (this.#listener === undefined) return socket.terminate();
          // Nobody is told to drain what was taken at once, but somebody may wait since before there was a connection.
          if (this.#flush()) this.#listener.drained();
        },
        data: (_, bytes) => this.#listener?.data(bytes),
        drain: () => {
          if (this.#flush()) this.#listener?.drained();
        },
        error: (_, error) => (failure ??= error),
        close: (_, error) => this.#close(failure ?? error),
        connectError: (_, error) => this.#close(error),
      },
    });
    connecting.catch((error: unknown) => this.#close(error as Error));
  }

  write(bytes: Uint8Array): boolean {
    this.#unsent.push(bytes);
    return this.#flush();
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  destroy(): void {
    this.#listener = undefined;
    this.#socket?.terminate();
  }

  /** Whether all is sent. */
  #flush(): boolean {
    if (this.#socket === undefined) return false;
    if (this.#unsent.length > 1) this.#unsent = [Buffer.concat(this.#unsent)];
    const [bytes] = this.#unsent;
    if (bytes === undefined) return true;
    const taken = Math.max(0, this.#socket.write(bytes));
    this.#unsent = taken === bytes.length ? [] : [bytes.subarray(taken)];
    return taken === bytes.length;
  }

  #close(error: Error | undefined): void {
    this.#listener?.closed(error);
    this.#listener = undefined;
  }
}
