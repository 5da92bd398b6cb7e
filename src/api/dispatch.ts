import { randomBytes } from "node:crypto";
import type { DescMethod } from "@bufbuild/protobuf";
import type { Clock } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { AnyHandler, ApiCall, Served } from "./handler.ts";

/** Where the daemon writes what nobody was told. */
export interface ErrorLog {
  error(detail: Readonly<Record<string, unknown>>, message: string): void;
}

export interface DispatchOptions {
  readonly clock: Clock;
  readonly log: ErrorLog;
  /** Calls at once, over all connections and protocols. Each costs a few KiB and maybe a process: a leak must end somewhere. */
  readonly maxCalls: number;
}

/** What both protocols share: finding the handler, the call's context, the limit on calls, and what an error becomes. */
export class Dispatcher {
  readonly services: readonly Served[];
  readonly clock: Clock;
  readonly #log: ErrorLog;
  readonly #maxCalls: number;
  #calls = 0;

  constructor(services: readonly Served[], options: DispatchOptions) {
    this.services = services;
    this.clock = options.clock;
    this.#log = options.log;
    this.#maxCalls = options.maxCalls;
    for (const { service, handlers } of services) {
      const missing = service.methods.filter((method) => handlers[method.localName] === undefined);
      if (missing.length > 0) throw new Error(`without a handler: ${missing.map((method) => method.name).join(", ")}`);
    }
  }

  handler(method: DescMethod): AnyHandler {
    const handler = this.services.find(({ service }) => service === method.parent)?.handlers[method.localName];
    if (handler === undefined) throw new Error(`${method.toString()} is not served here`);
    return handler;
  }

  call(author: string, signal: AbortSignal): ApiCall {
    return { author, signal, clock: this.clock, report: () => {} };
  }

  /** Takes a place among the calls at once; dispose of it when the call ends. */
  admit(): Disposable {
    if (this.#calls >= this.#maxCalls) {
      throw new Fault("exhausted", `the daemon serves ${this.#maxCalls} calls already`, {
        hint: "end some that watch or follow, or try again later",
      });
    }
    this.#calls += 1;
    return { [Symbol.dispose]: () => void (this.#calls -= 1) };
  }

  /**
   * What the client is told of `thrown`. A Fault is told as it is, without its cause. Anything else is a bug of ours: its
   * text may hold paths or secrets, so the client gets an id by which the log tells the rest.
   */
  fault(thrown: unknown, attempted: string, signal: AbortSignal): Fault {
    if (signal.aborted && !(thrown instanceof Fault)) {
      return new Fault("cancelled", `${attempted}: the client went away`, { cause: thrown });
    }
    if (thrown instanceof Fault && thrown.reason !== "bug") return thrown;
    const id = randomBytes(4).toString("hex");
    this.#log.error({ id, attempted, error: thrown }, "a call failed in a way that it never should");
    const hint = `the daemon's log says more beside the id ${id}; please report it`;
    if (thrown instanceof Fault) {
      return new Fault("bug", thrown.message, { hint, cause: thrown, detail: { ...thrown.detail, id } });
    }
    return new Fault("bug", `${attempted}: something unexpected went wrong`, { hint, cause: thrown, detail: { id } });
  }
}
