import type { Call } from "../base/call.ts";

/** What happened, durable and resumable: a subscriber that comes back with the last sequence it saw misses nothing. */
export interface EventBus {
  /** Records the event and hands it to subscribers. Resolves when it would survive a crash of the daemon. */
  publish(event: NewEvent): Promise<Event>;
  /**
   * Events with a sequence greater than `after`, then as they come; `"now"` is the moment of this call. `kinds` are
   * prefixes (`instance.` matches `instance.started`); none means all. Throws `exhausted` when events after `after` are
   * no longer kept (`detail.oldest` is the first that is), also to a subscriber that fell so far behind; `invalid` when
   * `after` has not happened yet; `cancelled` when the call is. Ends when the bus is closed.
   */
  subscribe(kinds: readonly string[], after: number | "now", call: Call): AsyncIterable<Event>;
  /** The sequence of the last event so far; 0 when there is none. */
  last(): number;
  /** Waits for the events under way and ends every subscription. */
  close(): Promise<void>;
}

export interface NewEvent {
  /** `<noun>.<past participle>`: `instance.started`, `generation.failed`, `image.pulled`. */
  readonly kind: string;
  /** What it is about: `shop/web-1`, `shop`, `nginx:1.27`. */
  readonly subject: string;
  /** One sentence for people. Never a secret. */
  readonly message: string;
  readonly detail?: Readonly<Record<string, string>>;
}

export interface Event extends NewEvent {
  /** 1, 2, 3, … without gaps. */
  readonly sequence: number;
  readonly timeMs: number;
}

/** How much of the past a bus keeps; what exceeds either is dropped, oldest first. The newest event always stays. */
export interface Retention {
  readonly count: number;
  readonly ageMs: number;
}

export const defaultRetention: Retention = { count: 100_000, ageMs: 30 * 86_400_000 };
