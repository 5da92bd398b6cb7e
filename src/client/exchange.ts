import { request, Agent, type ClientRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { Fault, type Reason } from "../base/fault.ts";
import { describeTarget, type Target } from "./target.ts";

/** One HTTP request to the daemon and the head of its answer. */
export interface Exchange {
  readonly request: ClientRequest;
  /** Rejects with the Fault that the daemon answered, or with `unavailable` when it cannot be reached. */
  readonly answer: Promise<IncomingMessage>;
  /** The answer's body as it comes; throws like `answer`, and `unavailable` when it is cut off. */
  body(): AsyncGenerator<Uint8Array>;
}

export interface ExchangeInit {
  readonly verb: string;
  /** With the query. */
  readonly path: string;
  readonly contentType?: string;
  readonly accept?: string;
  /** What is attempted, for messages: `instances.list`. */
  readonly attempted: string;
  readonly signal?: AbortSignal | undefined;
}

export interface ExchangerOptions {
  /** Tells a daemon on a unix socket whom to name as author. */
  readonly user?: string;
  /** Suits programs that stay, such as a dashboard; one command needs one connection. */
  readonly keepAlive?: boolean;
}

/** Opens exchanges with one daemon. */
export class Exchanger {
  readonly #target: Target;
  readonly #user: string | undefined;
  readonly #agent: Agent | undefined;

  constructor(target: Target, options: ExchangerOptions) {
    this.#target = target;
    this.#user = options.user;
    this.#agent = options.keepAlive === true ? new Agent({ keepAlive: true }) : undefined;
  }

  begin(init: ExchangeInit): Exchange {
    if (init.signal?.aborted === true) throw cancelled(init.attempted, init.signal);
    const request = this.#open(init);
    const onAbort = (): void => void request.destroy(cancelled(init.attempted, init.signal));
    init.signal?.addEventListener("abort", onAbort, { once: true });
    request.once("close", () => init.signal?.removeEventListener("abort", onAbort));
    const answer = new Promise<IncomingMessage>((resolve, reject) => {
      request.once("response", resolve);
      // Stays for good: a connection may fail more than once, when nobody asks any more.
      request.on("error", (error) => reject(this.#unreachable(error, init)));
    }).then(async (response) => {
      if (response.statusCode === 200) return response;
      throw await this.#refusal(response, init);
    });
    // A caller that is still sending looks at the answer later: until then its failure is not an unhandled one.
    answer.catch(() => {});
    return { request, answer, body: () => this.#body(answer, init) };
  }

  async *#body(answer: Promise<IncomingMessage>, init: ExchangeInit): AsyncGenerator<Uint8Array> {
    const response = await answer;
    try {
      for await (const chunk of response) yield chunk as Uint8Array;
    } catch (error) {
      throw this.#broken(error, init);
    }
    // Not every runtime that this is compiled for throws when the answer was cut off.
    if (!response.complete) throw this.#broken(undefined, init);
  }

  /** The end of a stream that broke, as a Fault. */
  #broken(error: unknown, { attempted, signal }: ExchangeInit): Fault {
    if (error instanceof Fault) return error;
    if (signal?.aborted === true) return cancelled(attempted, signal);
    return new Fault("unavailable", `the connection to the daemon was lost`, {
      hint: "see whether it still runs with: croft doctor",
      cause: error,
    });
  }

  #open(init: ExchangeInit): ClientRequest {
    const headers: Record<string, string> = { accept: init.accept ?? "application/json" };
    if (init.contentType !== undefined) headers["content-type"] = init.contentType;
    const options: RequestOptions = { method: init.verb, path: init.path, headers, agent: this.#agent ?? false };
    if (this.#target.kind === "unix") {
      if (this.#user !== undefined) headers["x-croft-user"] = encodeURIComponent(this.#user);
      return request({ ...options, socketPath: this.#target.socketPath });
    }
    const { url, token } = this.#target;
    headers["authorization"] = `Bearer ${token}`;
    const place = { host: url.hostname.replace(/^\[|\]$/g, ""), port: url.port };
    if (url.protocol === "http:") return request({ ...options, ...place });
    // TLS costs milliseconds to load, and the usual target is a unix socket.
    return process.getBuiltinModule("node:https").request({ ...options, ...place });
  }

  #unreachable(error: Error, init: ExchangeInit): Fault {
    if (error instanceof Fault) return error;
    const place = describeTarget(this.#target);
    const code = "code" in error ? String(error.code) : "";
    if (code === "EACCES" || code === "EPERM") {
      return new Fault("forbidden", `${place} may not be opened by this user`, {
        hint: "run as root, or join the group croft and log in again",
        cause: error,
      });
    }
    if (code === "ECONNRESET" || code === "EPIPE") return this.#broken(error, init);
    return new Fault("unavailable", `the Croft daemon does not answer at ${place}`, {
      hint:
        this.#target.kind === "unix"
          ? "start it: npm start in the checkout, or croftd as root; croft doctor looks for the reason"
          : "see whether it runs there and listens on this address",
      cause: error,
    });
  }

  /** The Fault in an answer that is not 200. */
  async #refusal(response: IncomingMessage, init: ExchangeInit): Promise<Fault> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of response) chunks.push(chunk as Buffer);
    } catch (error) {
      return this.#broken(error, init);
    }
    try {
      return faultOf((JSON.parse(Buffer.concat(chunks).toString("utf8")) as { error: ErrorBody }).error);
    } catch (error) {
      const place = describeTarget(this.#target);
      return new Fault(
        "unavailable",
        `${init.attempted}: what answers at ${place} (HTTP ${response.statusCode}) is not Croft`,
        {
          cause: error,
        },
      );
    }
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
