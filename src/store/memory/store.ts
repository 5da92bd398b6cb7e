import { throwIfCancelled, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Wake } from "../../base/wake.ts";
import type { Change, Entry, Revision, Store } from "../contract.ts";
import { checkKey, checkRemembered, checkRevision, encodeValue } from "../check.ts";

interface Row {
  readonly revision: Revision;
  /** JSON; absent once the key was removed. */
  readonly text: string | undefined;
}

/** A Store that forgets everything with the process: for tests, and for planning without a daemon. */
export class MemoryStore implements Store {
  /** In the order of revisions, as a row is taken out and put in again when it changes. */
  readonly #rows = new Map<string, Row>();
  readonly #rememberedRemovals: number;
  readonly #removals: string[] = [];
  readonly #wake = new Wake();
  #last: Revision = 0;
  #forgotten: Revision = 0;
  #closed = false;

  constructor(options: { readonly rememberedRemovals?: number } = {}) {
    this.#rememberedRemovals = Math.max(1, options.rememberedRemovals ?? 10_000);
  }

  async get<Value>(key: string, call: Call): Promise<Entry<Value> | undefined> {
    checkKey(key);
    throwIfCancelled(call);
    const row = this.#rows.get(key);
    return row?.text === undefined ? undefined : { key, value: JSON.parse(row.text) as Value, revision: row.revision };
  }

  async put(key: string, value: unknown, expected: Revision | "absent" | "any", call: Call): Promise<Revision> {
    checkKey(key);
    const text = encodeValue(key, value);
    throwIfCancelled(call);
    this.#checkOpen(`store ${key}`);
    const row = this.#rows.get(key);
    const found = row?.text === undefined ? "absent" : row.revision;
    checkRevision(key, expected, found);
    return this.#write(key, text);
  }

  async remove(key: string, expected: Revision | "any", call: Call): Promise<void> {
    checkKey(key);
    throwIfCancelled(call);
    this.#checkOpen(`remove ${key}`);
    const row = this.#rows.get(key);
    if (row?.text === undefined) return;
    checkRevision(key, expected, row.revision);
    this.#write(key, undefined);
    this.#removals.push(key);
    if (this.#removals.length > this.#rememberedRemovals) this.#forgetOldest();
  }

  async list<Value>(prefix: string, call: Call): Promise<readonly Entry<Value>[]> {
    throwIfCancelled(call);
    const entries: Entry<Value>[] = [];
    for (const [key, { text, revision }] of this.#rows) {
      if (text !== undefined && key.startsWith(prefix))
        entries.push({ key, value: JSON.parse(text) as Value, revision });
    }
    return entries.sort((left, right) => (left.key < right.key ? -1 : 1));
  }

  async *watch<Value>(prefix: string, after: Revision, call: Call): AsyncIterable<Change<Value>> {
    let position = after;
    while (!this.#closed) {
      throwIfCancelled(call);
      const changes = this.#changes<Value>(prefix, position);
      position = this.#last;
      // Nothing may be awaited between looking and waiting; `yield*` awaits even when there is nothing to yield.
      if (changes.length > 0) yield* changes;
      else if (!this.#closed) await this.#wake.next(call.signal);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake.ring();
  }

  #changes<Value>(prefix: string, position: Revision): readonly Change<Value>[] {
    checkRemembered(prefix, position, this.#forgotten);
    const changes: Change<Value>[] = [];
    for (const [key, { text, revision }] of this.#rows) {
      if (revision <= position || !key.startsWith(prefix)) continue;
      changes.push(
        text === undefined
          ? { kind: "remove", key, revision }
          : { kind: "put", key, value: JSON.parse(text) as Value, revision },
      );
    }
    return changes;
  }

  #write(key: string, text: string | undefined): Revision {
    this.#last += 1;
    this.#rows.delete(key);
    this.#rows.set(key, { revision: this.#last, text });
    this.#wake.ring();
    return this.#last;
  }

  #forgetOldest(): void {
    // A key that was removed, written and removed again stands here twice; its row counts once, by its last revision.
    const key = this.#removals.shift();
    const row = key === undefined ? undefined : this.#rows.get(key);
    if (key === undefined || row === undefined || row.text !== undefined || this.#removals.includes(key)) return;
    this.#rows.delete(key);
    this.#forgotten = row.revision;
  }

  #checkOpen(attempted: string): void {
    if (this.#closed) throw new Fault("unavailable", `${attempted}: the store is closed`);
  }
}
