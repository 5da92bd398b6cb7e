import { Fault } from "./fault.ts";

/**
 * The context of everything that waits, always the last argument: who may cancel it, what time it is, and where progress
 * goes. `Date.now` and `setTimeout` live in `SystemClock` alone, so tests own time.
 */
export interface Call {
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** Tell whoever watches how far the work is. Cheap; may be called often. */
  report(progress: Progress): void;
}

/** One line of progress of long work; the same `topic` again replaces the line. */
export interface Progress {
  /** What is being worked on: `pull nginx:1.27 sha256:ab12`, `start web-1`. Stable while that work lasts. */
  readonly topic: string;
  /** What is happening to it now: `downloading`, `healthy`. */
  readonly state: string;
  readonly done?: number;
  /** Absent while not known. */
  readonly total?: number;
  readonly unit?: "bytes" | "steps";
}

export interface Clock {
  /** Wall time, milliseconds since the Unix epoch. */
  nowMs(): number;
  /** Monotonic milliseconds, for intervals. */
  monotonicMs(): number;
  /** Resolves after `delayMs`; rejects with a `cancelled` Fault when `signal` aborts first. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
  /** Calls `action` once after `delayMs`; the returned function cancels it. Does not keep the process alive. */
  after(delayMs: number, action: () => void): () => void;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep(delayMs, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(cancelled(signal));
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(cancelled(signal));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, delayMs);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** A call that nobody cancels or watches: the daemon's own background work, and tests. */
export function backgroundCall(clock: Clock = systemClock, signal: AbortSignal = new AbortController().signal): Call {
  return { signal, clock, report: () => {} };
}

/** `call`, also cancelled after `limitMs`. Dispose of it (`using`) so that the timer and listener go away. */
export function withDeadline(call: Call, limitMs: number, attempted: string): Call & Disposable {
  const controller = new AbortController();
  const onAbort = (): void => controller.abort(call.signal.reason);
  if (call.signal.aborted) onAbort();
  else call.signal.addEventListener("abort", onAbort, { once: true });
  const cancelTimer = call.clock.after(limitMs, () =>
    controller.abort(new Fault("timeout", `${attempted}: not done within ${limitMs} ms`)),
  );
  return {
    signal: controller.signal,
    clock: call.clock,
    report: (progress) => call.report(progress),
    [Symbol.dispose]() {
      cancelTimer();
      call.signal.removeEventListener("abort", onAbort);
    },
  };
}

/** Throws when the call was cancelled: a `timeout` Fault if its deadline passed, otherwise a `cancelled` one. */
export function throwIfCancelled(call: Call): void {
  if (call.signal.aborted) throw cancelled(call.signal);
}

/** What `work` comes to; a rejection as soon as the call is cancelled, which the work does not hear of. */
export async function orCancelled<Value>(work: Promise<Value>, { signal }: Call): Promise<Value> {
  const { promise: given, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelled(signal));
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, given]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function cancelled(signal: AbortSignal | undefined): Fault {
  const reason: unknown = signal?.reason;
  return reason instanceof Fault ? reason : new Fault("cancelled", "cancelled", { cause: reason });
}
