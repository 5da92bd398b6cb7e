import type { Call } from "../base/call.ts";

/**
 * Durable key-value state. It promises compare-and-set on one key and nothing more, so that an embedded SQLite file and
 * a NATS JetStream cluster both keep the promise. Keys are `/`-separated words (`stack/shop/current`); values are JSON.
 */
export interface Store {
  get<Value>(key: string, call: Call): Promise<Entry<Value> | undefined>;
  /**
   * Writes when the key's revision is still `expected` (`"absent"`: the key does not exist). Durable when it returns:
   * survives a power cut. Throws `conflict` when somebody moved first. Returns the new revision.
   */
  put(key: string, value: unknown, expected: Revision | "absent" | "any", call: Call): Promise<Revision>;
  /** Idempotent; `conflict` as for put. */
  remove(key: string, expected: Revision | "any", call: Call): Promise<void>;
  /** All entries whose key starts with `prefix`, in key order. */
  list<Value>(prefix: string, call: Call): Promise<readonly Entry<Value>[]>;
  /** Changes under `prefix` after revision `after` (exclusive), then as they come. */
  watch<Value>(prefix: string, after: Revision, call: Call): AsyncIterable<Change<Value>>;
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
