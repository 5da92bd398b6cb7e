import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { Http2Server, ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import type { Dispatcher } from "./dispatch.ts";
import type { RpcHandler } from "./grpc/server.ts";
import { sendFault, type Answer, type Request } from "./rest/answer.ts";
import type { RestServer } from "./rest/server.ts";

/** Tells who sent a request, or throws `unauthenticated`. */
export type Authenticate = (headers: IncomingHttpHeaders) => string;

/** How every HTTP/2 connection begins (RFC 9113, 3.4), as far as it takes to tell. No HTTP/1 method looks like it. */
const preface = Buffer.from("PRI * HTTP/2.0");

/** Whoever connects must have said what it wants within this time. */
const helloLimitMs = 10_000;

/** Calls at once on one HTTP/2 connection. */
const maxStreams = 250;

/**
 * Serves REST and gRPC on connections that a listener hands over; one door for each listener, because each has its own
 * way to tell who comes in.
 *
 * HTTP/1 and HTTP/2 share a port by the first bytes of a connection. HTTP/2 and gRPC are loaded when somebody first
 * speaks them: most daemons are only ever asked by the command line, and save the memory.
 */
export class Door {
  readonly #authenticate: Authenticate;
  readonly #dispatcher: Dispatcher;
  readonly #rest: RestServer;
  readonly #http1: Server;
  #http2: Promise<Http2Server> | undefined;
  #rpc: Promise<RpcHandler> | undefined;
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();

  constructor(dispatcher: Dispatcher, rest: RestServer, authenticate: Authenticate) {
    this.#authenticate = authenticate;
    this.#dispatcher = dispatcher;
    this.#rest = rest;
    // A stream's body may take for ever, so there is no limit for requests; `readBody` watches those that must end.
    const limits = {
      requestTimeout: 0,
      headersTimeout: helloLimitMs,
      keepAliveTimeout: 60_000,
      maxHeaderSize: 16_384,
      connectionsCheckingInterval: 2000,
    };
    this.#http1 = createServer(limits, (request, answer) => this.#handle(request, answer));
    this.#http1.maxHeadersCount = 64;
    // This server never listens itself, but only begins to watch for slow headers when it hears that it does.
    this.#http1.emit("listening");
  }

  /** Takes a fresh connection. */
  accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // A connection that breaks is the business of its calls, which learn of it by their signals.
    socket.on("error", () => socket.destroy());
    const late = (): void => void socket.destroy();
    socket.setTimeout(helloLimitMs, late);
    let hello: Buffer = Buffer.alloc(0);
    const sniff = (chunk: Buffer): void => {
      hello = hello.length === 0 ? chunk : Buffer.concat([hello, chunk]);
      const length = Math.min(hello.length, preface.length);
      const alike = hello.subarray(0, length).equals(preface.subarray(0, length));
      if (alike && length < preface.length) return;
      socket.off("data", sniff);
      socket.pause();
      socket.setTimeout(0);
      socket.off("timeout", late);
      socket.unshift(hello);
      if (alike) this.#acceptHttp2(socket);
      else {
        this.#http1.emit("connection", socket);
        socket.resume();
      }
    };
    socket.on("data", sniff);
  }

  /** Lets calls finish for `graceMs`, then ends them. Resolves when no connection is left. */
  async close(graceMs: number): Promise<void> {
    const closed = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once("close", resolve)));
    this.#http1.close();
    for (const session of this.#sessions) session.close();
    const cancel = this.#dispatcher.clock.after(graceMs, () => this.#sockets.forEach((socket) => socket.destroy()));
    await Promise.all(closed);
    cancel();
  }

  #acceptHttp2(socket: Socket): void {
    this.#http2 ??= this.#openHttp2();
    this.#http2.then(
      (server) => server.emit("connection", socket),
      () => socket.destroy(),
    );
  }

  async #openHttp2(): Promise<Http2Server> {
    const http2 = await import("node:http2");
    const settings = { maxConcurrentStreams: maxStreams, maxHeaderListSize: 16_384 };
    const server = http2.createServer({ settings, maxHeaderListPairs: 64, maxSessionMemory: 64 });
    server.on("request", (request, answer) => this.#handle(request as unknown as Request, answer as unknown as Answer));
    server.on("session", (session) => {
      this.#sessions.add(session);
      session.once("close", () => this.#sessions.delete(session));
    });
    server.on("sessionError", () => {});
    return server;
  }

  #handle(request: Request, answer: Answer): void {
    request.on("error", () => {});
    answer.on("error", () => {});
    // gRPC, gRPC-Web and Connect name the method by its full name; no route of ours has a dot in its first segment.
    if (/^\/[\w.]+\.\w+\/\w+/.test(request.url ?? "")) return this.#handleRpc(request, answer);
    let author: string;
    try {
      author = this.#authenticate(request.headers);
    } catch (thrown) {
      return sendFault(answer, this.#dispatcher.fault(thrown, "authenticate", new AbortController().signal), {
        "www-authenticate": "Bearer",
        ...(request.httpVersionMajor === 1 && { connection: "close" }),
      });
    }
    this.#rest.handle(request, answer, author);
  }

  #handleRpc(request: Request, answer: Answer): void {
    this.#rpc ??= this.#openRpc();
    this.#rpc.then((handle) => handle(request, answer)).catch(() => answer.destroy());
  }

  async #openRpc(): Promise<RpcHandler> {
    const { rpcHandler } = await import("./grpc/server.ts");
    return rpcHandler(this.#dispatcher, this.#authenticate);
  }
}
