import { Fault } from "./fault.ts";

/**
 * Tells those who wait that there is news, without carrying it: they look for themselves.
 *
 * A slow reader therefore costs one closure and no queue. A ring between looking and waiting cannot be lost as long as
 * nothing is awaited between the two.
 */
export class Wake {
  readonly #waiting = new Set<() => void>();

  /** Wakes everyone who waits now. */
  ring(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** Resolves at the next ring; rejects with a `cancelled` Fault (or the signal's own Fault) when `signal` aborts. */
  next(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onRing = (): void => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = (): void => {
        this.#waiting.delete(onRing);
        const reason: unknown = signal?.reason;
        reject(reason instanceof Fault ? reason : new Fault("cancelled", "cancelled", { cause: reason }));
      };
      if (signal?.aborted === true) return onAbort();
      this.#waiting.add(onRing);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }
}
