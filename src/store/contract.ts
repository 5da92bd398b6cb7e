import type { Call } from "../base/call.ts";

/**
 * Durable key-value state. It promises compare-and-set on one key and nothing more, so that an embedded SQLite file and
 * a NATS JetStream cluster both keep the promise. Keys are `/`-separated words (`stack/shop/current`); values are JSON.
 * `check.ts` says exactly what a key may be; anything else is an `invalid` Fault.
 */
export interface Store {
  get<Value>(key: string, call: Call): Promise<Entry<Value> | undefined>;
  /**
   * Writes when the key's revision is still `expected` (`"absent"`: the key does not exist). Durable when it returns:
   * survives a power cut. Throws `conflict` when somebody moved first, `exhausted` on a full disk; either way nothing was
   * written. Returns the new revision.
   */
  put(key: string, value: unknown, expected: Revision | "absent" | "any", call: Call): Promise<Revision>;
  /** Idempotent: a key that is not there is removed already. Otherwise `conflict` as for put. */
  remove(key: string, expected: Revision | "any", call: Call): Promise<void>;
  /** All entries whose key starts with `prefix`, in key order. */
  list<Value>(prefix: string, call: Call): Promise<readonly Entry<Value>[]>;
  /**
   * Changes under `prefix` after revision `after` (exclusive), then as they come, in the order of their revisions. After 0
   * begins with everything there is. Whoever falls behind sees the latest change of each key, not those in between.
   * Throws `exhausted` when removals after `after` are no longer remembered: begin again with 0. Throws `cancelled` when
   * the call is cancelled; ends when the store is closed.
   */
  watch<Value>(prefix: string, after: Revision, call: Call): AsyncIterable<Change<Value>>;
  /** Waits for the writes under way and ends every watch. */
  close(): Promise<void>;
}

/** Grows with every write to the store, over all keys. */
export type Revision = number;

export interface Entry<Value> {
  readonly key: string;
  readonly value: Value;
  readonly revision: Revision;
}

export type Change<Value> =
  | ({ readonly kind: "put" } & Entry<Value>)
  | { readonly kind: "remove"; readonly key: string; readonly revision: Revision };
