import { type Call, orCancelled, type Progress, throwIfCancelled } from "../base/call.ts";

interface Running<Value> {
  readonly result: Promise<Value>;
  readonly controller: AbortController;
  readonly callers: Set<Call>;
}

/**
 * Work that several callers ask for at once and that is done once: a pull, a layer.
 *
 * Every caller sees its progress and may cancel for itself; the work is cancelled when the last of them has gone. A
 * result is not kept: who comes after the end starts anew.
 */
export class SharedWork<Value> {
  readonly #running = new Map<string, Running<Value>>();

  /** The result of `work` for `key`, joined when it is under way. `work` must clean up after itself when cancelled. */
  async join(key: string, call: Call, work: (call: Call) => Promise<Value>): Promise<Value> {
    throwIfCancelled(call);
    const running = this.#running.get(key) ?? this.#start(key, call, work);
    running.callers.add(call);
    try {
      return await orCancelled(running.result, call);
    } finally {
      running.callers.delete(call);
      if (running.callers.size === 0) {
        // Nobody may join work that is being cancelled.
        if (this.#running.get(key) === running) this.#running.delete(key);
        running.controller.abort();
        // Whoever cancels may rely on nothing being left once that is acknowledged.
        await running.result.catch(() => {});
      }
    }
  }

  #start(key: string, call: Call, work: (call: Call) => Promise<Value>): Running<Value> {
    const controller = new AbortController();
    const callers = new Set<Call>();
    const report = (progress: Progress): void => {
      for (const caller of callers) caller.report(progress);
    };
    // Deferred by a turn, so that the first caller is among those who hear of the first progress.
    const result = Promise.resolve().then(() => work({ signal: controller.signal, clock: call.clock, report }));
    const running = { result, controller, callers };
    this.#running.set(key, running);
    const forget = (): void => {
      if (this.#running.get(key) === running) this.#running.delete(key);
    };
    // The rejection itself reaches the callers; here it only must not count as unhandled after they have gone.
    result.then(forget, forget);
    return running;
  }
}
