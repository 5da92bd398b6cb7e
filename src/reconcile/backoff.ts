/** Waiting times that grow: for restarts of what keeps exiting, and for steps that keep failing. */
export interface BackoffPolicy {
  readonly firstMs: number;
  readonly longestMs: number;
  /** A run that lasted this long counts as success: the next failure starts from `firstMs` again. */
  readonly forgivenAfterMs: number;
}

/** As docker does it, so that nobody is surprised: 100 ms doubling to one minute, forgiven after ten seconds. */
export const restartBackoff: BackoffPolicy = { firstMs: 100, longestMs: 60_000, forgivenAfterMs: 10_000 };
export const stepBackoff: BackoffPolicy = { firstMs: 250, longestMs: 30_000, forgivenAfterMs: 60_000 };

export class Backoff<Key> {
  readonly #policy: BackoffPolicy;
  readonly #failures = new Map<Key, { readonly count: number; readonly retryMs: number; readonly failedMs: number }>();

  constructor(policy: BackoffPolicy) {
    this.#policy = policy;
  }

  /** Counts a failure at `nowMs` and returns when to try again. */
  failed(key: Key, nowMs: number): number {
    const known = this.#failures.get(key);
    const count =
      known === undefined || nowMs - known.failedMs > this.#policy.forgivenAfterMs + this.#wait(known.count)
        ? 1
        : known.count + 1;
    const retryMs = nowMs + this.#wait(count);
    this.#failures.set(key, { count, retryMs, failedMs: nowMs });
    return retryMs;
  }

  /** When it may be tried again; undefined when it did not fail. */
  retryMs(key: Key): number | undefined {
    return this.#failures.get(key)?.retryMs;
  }

  count(key: Key): number {
    return this.#failures.get(key)?.count ?? 0;
  }

  forget(key: Key): void {
    this.#failures.delete(key);
  }

  #wait(count: number): number {
    return Math.min(this.#policy.longestMs, this.#policy.firstMs * 2 ** Math.min(count - 1, 20));
  }
}
