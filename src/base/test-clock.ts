import { throwIfCancelled, type Clock } from "./call.ts";

/**
 * A clock that stands still until a test moves it: `advance` runs everything that falls due on the way, in order, and
 * lets what that woke run before the next.
 */
export class TestClock implements Clock {
  #nowMs: number;
  readonly #startMs: number;
  readonly #timers = new Set<Timer>();

  constructor(nowMs = 1_700_000_000_000) {
    this.#nowMs = nowMs;
    this.#startMs = nowMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs - this.#startMs;
  }

  after(delayMs: number, action: () => void): () => void {
    const timer: Timer = { dueMs: this.#nowMs + Math.max(0, delayMs), action };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  sleep(delayMs: number, signal: AbortSignal = new AbortController().signal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        cancelTimer();
        try {
          throwIfCancelled({ signal, clock: this, report: () => {} });
        } catch (cancelled) {
          reject(cancelled);
        }
      };
      const cancelTimer = this.after(delayMs, () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      });
      if (signal.aborted) onAbort();
      else signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** How many timers and sleepers wait: zero when nothing was leaked. */
  get waiting(): number {
    return this.#timers.size;
  }

  /** Moves time on by `byMs`. Resolves when everything that fell due has run. */
  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      await settled();
      const timer = this.#next(untilMs);
      if (timer === undefined) break;
      this.#timers.delete(timer);
      this.#nowMs = Math.max(this.#nowMs, timer.dueMs);
      timer.action();
    }
    this.#nowMs = untilMs;
  }

  /** The earliest timer due by `untilMs`; of two at the same moment, the one set first. */
  #next(untilMs: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.dueMs <= untilMs && (next === undefined || timer.dueMs < next.dueMs)) next = timer;
    }
    return next;
  }
}

interface Timer {
  readonly dueMs: number;
  readonly action: () => void;
}

/** Resolves after every promise that is ready now, and what those make ready, was handled. */
export function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
