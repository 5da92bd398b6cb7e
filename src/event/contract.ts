import type { Call } from "../base/call.ts";

/** What happened, durable and resumable: a subscriber that comes back with the last sequence it saw misses nothing. */
export interface EventBus {
  /** Records the event and hands it to subscribers. Resolves when it would survive a crash of the daemon. */
  publish(event: NewEvent): Promise<Event>;
  /**
   * Events with a sequence greater than `after`, then as they come. `kinds` are prefixes (`instance.` matches
   * `instance.started`); none means all. Throws `exhausted` when `after` is older than what is kept.
   */
  subscribe(kinds: readonly string[], after: number | "now", call: Call): AsyncIterable<Event>;
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
