import { Fault, type Reason } from "../base/fault.ts";
import { Wake } from "../base/wake.ts";
import { Reply } from "./reply.ts";
import { describeTarget, type Target } from "./target.ts";
import { openWire, type Wire, type WireListener } from "./wire.ts";

export interface ExchangeInit {
  readonly verb: string;
  /** With the query. */
  readonly path: string;
  readonly content?: string;
  /** There is content, and it is sent piece by piece. */
  readonly isStream?: true;
  readonly contentType?: string;
  readonly accept?: string;
  /** What is attempted, for messages: `instances.list`. */
  readonly attempted: string;
  readonly signal?: AbortSignal | undefined;
}

export interface ExchangerOptions {
  /** Tells a daemon on a unix socket whom to name as author. */
  readonly user?: string;
}

/** Opens exchanges with one daemon. */
export class Exchanger {
  readonly #target: Target;
  readonly #user: string | undefined;

  constructor(target: Target, options: ExchangerOptions) {
    this.#target = target;
    this.#user = options.user;
  }

  begin(init: ExchangeInit): Exchange {
    if (init.signal?.aborted === true) throw cancelled(init.attempted, init.signal);
    return new Exchange(this.#target, init, this.#head(init));
  }

  /** One connection for each exchange: commands make one, and a watch keeps its own for as long as it lasts. */
  #head({ verb, path, content, isStream, contentType, accept }: ExchangeInit): string {
    const target = this.#target;
    const headers: Record<string, string> = {
      host: target.kind === "unix" ? "localhost" : target.url.host,
      accept: accept ?? "application/json",
      connection: "close",
    };
    if (contentType !== undefined) headers["content-type"] = contentType;
    if (isStream === true) headers["transfer-encoding"] = "chunked";
    else if (content !== undefined || verb !== "GET") {
      headers["content-length"] = String(Buffer.byteLength(content ?? ""));
    }
    if (target.kind === "tcp") headers["authorization"] = `Bearer ${target.token}`;
    else if (this.#user !== undefined) headers["x-croft-user"] = encodeURIComponent(this.#user);
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return `${verb} ${path} HTTP/1.1\r\n${lines.join("")}\r\n`;
  }
}

/** More content than this that nobody reads makes the daemon wait. */
const unreadBytes = 256 * 1024;

/** Longer than any refusal. */
const refusalBytes = 2 ** 20;

const never = new AbortController().signal;

/** One HTTP request to the daemon and its answer. */
export class Exchange implements WireListener {
  readonly #target: Target;
  readonly #init: ExchangeInit;
  readonly #wire: Wire;
  readonly #reply: Reply;
  readonly #status = Promise.withResolvers<number>();
  /** Rings at all that those who wait could wait for. */
  readonly #news = new Wake();
  readonly #onAbort = (): void => this.#fail(cancelled(this.#init.attempted, this.#init.signal));
  #content: Uint8Array[] = [];
  #contentBytes = 0;
  #isPaused = false;
  #hasRoom = true;
  #hasHead = false;
  /** Nothing more is sent or heard. */
  #isOver = false;
  #failure: Fault | undefined;

  constructor(target: Target, init: ExchangeInit, head: string) {
    this.#target = target;
    this.#init = init;
    this.#reply = new Reply(
      ({ status }) => {
        this.#hasHead = true;
        this.#status.resolve(status);
      },
      (bytes) => this.#hear(bytes),
    );
    // A caller that is still sending looks at the answer later: until then its failure is not an unhandled one.
    this.#status.promise.catch(() => {});
    this.#wire = openWire(target, this);
    init.signal?.addEventListener("abort", this.#onAbort, { once: true });
    this.#hasRoom = this.#wire.write(Buffer.from(head + (init.content ?? "")));
  }

  /** True when the daemon refused, before it heard all. */
  get isRefused(): Promise<boolean> {
    return this.#status.promise.then(
      (status) => status !== 200,
      () => true,
    );
  }

  /** Sends a piece and waits until there is room for more. What comes after the end is dropped: the answer tells more. */
  async send(piece: Uint8Array): Promise<void> {
    if (this.#isOver || piece.length === 0) return;
    const length = piece.length.toString(16);
    this.#hasRoom = this.#wire.write(Buffer.concat([Buffer.from(`${length}\r\n`), piece, Buffer.from("\r\n")]));
    while (!this.#hasRoom && !this.#isOver) await this.#news.next(never);
  }

  /** Nothing more will be sent. */
  end(): void {
    if (!this.#isOver) this.#wire.write(Buffer.from("0\r\n\r\n"));
  }

  /** Lets go of it, at whatever point it is. */
  destroy(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#init.signal?.removeEventListener("abort", this.#onAbort);
    this.#wire.destroy();
    this.#status.reject(new Fault("cancelled", `${this.#init.attempted}: nobody waits for it any more`));
    this.#news.ring();
  }

  /**
   * The answer's content as it comes. Throws the Fault that the daemon answered, or `unavailable` when it cannot be
   * reached or the connection breaks.
   */
  async *body(): AsyncGenerator<Uint8Array> {
    try {
      const status = await this.#status.promise;
      if (status !== 200) throw await this.#refusal(status);
      yield* this.#pieces();
    } finally {
      this.destroy();
    }
  }

  data(bytes: Uint8Array): void {
    try {
      this.#reply.feed(bytes);
    } catch (error) {
      return this.#fail(this.#stranger(error, ""));
    }
    this.#news.ring();
  }

  drained(): void {
    this.#hasRoom = true;
    this.#news.ring();
  }

  closed(error?: Error): void {
    this.#reply.close();
    if (this.#reply.complete) this.#end();
    else this.#fail(this.#hasHead ? this.#broken(error) : this.#unreachable(error));
  }

  #hear(bytes: Uint8Array): void {
    this.#content.push(bytes);
    this.#contentBytes += bytes.length;
    if (this.#contentBytes < unreadBytes || this.#isPaused) return;
    this.#isPaused = true;
    this.#wire.pause();
  }

  async *#pieces(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const pieces = this.#content;
      this.#content = [];
      this.#contentBytes = 0;
      if (this.#isPaused) {
        this.#isPaused = false;
        this.#wire.resume();
      }
      yield* pieces;
      if (this.#content.length > 0) continue;
      if (this.#reply.complete) return;
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#isOver) return;
      await this.#news.next(never);
    }
  }

  #end(): void {
    this.#isOver = true;
    this.#init.signal?.removeEventListener("abort", this.#onAbort);
    this.#news.ring();
  }

  #fail(fault: Fault): void {
    if (this.#isOver) return;
    this.#failure = fault;
    this.#status.reject(fault);
    this.#wire.destroy();
    this.#end();
  }

  /** The Fault in an answer that is not 200. */
  async #refusal(status: number): Promise<Fault> {
    const chunks: Uint8Array[] = [];
    let sizeBytes = 0;
    try {
      for await (const chunk of this.#pieces()) {
        sizeBytes += chunk.length;
        if (sizeBytes > refusalBytes) break;
        chunks.push(chunk);
      }
    } catch (error) {
      return error as Fault;
    }
    try {
      return faultOf((JSON.parse(Buffer.concat(chunks).toString("utf8")) as { error: ErrorBody }).error);
    } catch (error) {
      return this.#stranger(error, ` (HTTP ${status})`);
    }
  }

  #stranger(cause: unknown, how: string): Fault {
    const place = describeTarget(this.#target);
    return new Fault("unavailable", `${this.#init.attempted}: what answers at ${place}${how} is not Croft`, { cause });
  }

  /** A connection that there was. */
  #broken(cause: unknown): Fault {
    return new Fault("unavailable", `the connection to the daemon was lost`, {
      hint: "see whether it still runs with: croft doctor",
      cause,
    });
  }

  #unreachable(error: Error | undefined): Fault {
    const place = describeTarget(this.#target);
    const code = error !== undefined && "code" in error ? String(error.code) : "";
    if (code === "EACCES" || code === "EPERM") {
      return new Fault("forbidden", `${place} may not be opened by this user`, {
        hint: "run as root, or join the group croft and log in again",
        cause: error,
      });
    }
    if (/CERT|SIGNATURE|ALTNAME/.test(code)) {
      return new Fault("unavailable", `the certificate of ${place} is not trusted: ${error?.message}`, {
        hint: "for an authority of your own, set NODE_EXTRA_CA_CERTS to the file with its certificate",
        cause: error,
      });
    }
    if (error === undefined || code === "ECONNRESET" || code === "EPIPE") return this.#broken(error);
    return new Fault("unavailable", `the Croft daemon does not answer at ${place}`, {
      hint:
        this.#target.kind === "unix"
          ? "start it: npm start in the checkout, or croftd as root; croft doctor looks for the reason"
          : "see whether it runs there and listens on this address",
      cause: error,
    });
  }
}

/** As the daemon writes a Fault: the body of a refusal, or the last line of a stream. */
export interface ErrorBody {
  readonly reason: Reason;
  readonly message: string;
  readonly hint?: string;
  readonly detail?: Readonly<Record<string, string>>;
}

export function faultOf({ reason, message, hint, detail }: ErrorBody): Fault {
  return new Fault(reason, message, {
    ...(hint !== undefined && hint !== "" && { hint }),
    ...(detail !== undefined && { detail }),
  });
}

function cancelled(attempted: string, signal: AbortSignal | undefined): Fault {
  const reason: unknown = signal?.reason;
  return reason instanceof Fault ? reason : new Fault("cancelled", `${attempted}: cancelled`, { cause: reason });
}
