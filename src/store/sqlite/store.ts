import { throwIfCancelled, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Wake } from "../../base/wake.ts";
import type { Change, Entry, Revision, Store } from "../contract.ts";
import { checkKey, checkRemembered, checkRevision, encodeValue } from "../check.ts";
import type { Database } from "./database.ts";

/** A watcher reads this many changes at a time, so that one that lags costs no memory. */
const pageSize = 256;

/** Sorts after every key that starts with the same prefix: keys are printable ASCII. */
const afterEveryKey = "\x7f";

interface Row {
  readonly key: string;
  readonly value: string | null;
  readonly revision: number;
}

/** The Store in the daemon's one SQLite file. The database is opened and closed by whoever made it. */
export class SqliteStore implements Store {
  readonly #database: Database;
  readonly #rememberedRemovals: number;
  readonly #wake = new Wake();
  readonly #sql;
  #pending = new Set<Promise<unknown>>();
  #closed = false;

  /** `rememberedRemovals`: how many removed keys are kept for watchers that come back. */
  constructor(database: Database, options: { readonly rememberedRemovals?: number } = {}) {
    this.#database = database;
    this.#rememberedRemovals = options.rememberedRemovals ?? 10_000;
    this.#sql = {
      get: database.prepare("select key, value, revision from entry where key = ?"),
      list: database.prepare(
        "select key, value, revision from entry where key >= ? and key < ? and value is not null order by key",
      ),
      changes: database.prepare(
        `select key, value, revision from entry where revision > ? and key >= ? and key < ? order by revision limit ${pageSize}`,
      ),
      last: database.prepare("select coalesce(max(revision), 0) as revision from entry"),
      write: database.prepare(
        `insert into entry (key, value, revision) values (?, ?, ?)
         on conflict (key) do update set value = excluded.value, revision = excluded.revision`,
      ),
      // The newest removal outside those remembered.
      oldest: database.prepare(
        "select revision from entry where value is null order by revision desc limit 1 offset ?",
      ),
      forget: database.prepare("delete from entry where value is null and revision <= ?"),
      forgotten: database.prepare("select revision from forgotten"),
      setForgotten: database.prepare("update forgotten set revision = ?"),
    };
  }

  async get<Value>(key: string, call: Call): Promise<Entry<Value> | undefined> {
    checkKey(key);
    throwIfCancelled(call);
    const row = this.#database.read(`read ${key}`, () => this.#row(key));
    return row === undefined || row.value === null ? undefined : entryOf<Value>(row);
  }

  async put(key: string, value: unknown, expected: Revision | "absent" | "any", call: Call): Promise<Revision> {
    checkKey(key);
    const text = encodeValue(key, value);
    throwIfCancelled(call);
    return this.#change(`store ${key}`, () => {
      const row = this.#row(key);
      const found = row === undefined || row.value === null ? "absent" : row.revision;
      checkRevision(key, expected, found);
      return this.#write(key, text);
    });
  }

  async remove(key: string, expected: Revision | "any", call: Call): Promise<void> {
    checkKey(key);
    throwIfCancelled(call);
    await this.#change(`remove ${key}`, () => {
      const row = this.#row(key);
      if (row === undefined || row.value === null) return;
      checkRevision(key, expected, row.revision);
      this.#write(key, null);
      this.#forgetOldRemovals();
    });
  }

  async list<Value>(prefix: string, call: Call): Promise<readonly Entry<Value>[]> {
    throwIfCancelled(call);
    const rows = this.#database.read(`list ${prefix}`, () => this.#sql.list.all(prefix, prefix + afterEveryKey));
    return (rows as unknown as Row[]).map((row) => entryOf<Value>(row));
  }

  async *watch<Value>(prefix: string, after: Revision, call: Call): AsyncIterable<Change<Value>> {
    let position = after;
    while (!this.#closed) {
      throwIfCancelled(call);
      const page = this.#page(prefix, position);
      for (const row of page.rows) {
        yield row.value === null
          ? { kind: "remove", key: row.key, revision: row.revision }
          : { kind: "put", ...entryOf<Value>(row) };
      }
      position = page.position;
      // Only an empty page is followed by waiting at once: while a full one was consumed, more may have come.
      if (page.rows.length === 0 && !this.#closed) await this.#wake.next(call.signal);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#pending);
    this.#wake.ring();
  }

  #page(prefix: string, position: Revision): { readonly rows: readonly Row[]; readonly position: Revision } {
    return this.#database.read(`watch ${prefix}`, () => {
      const forgotten = Number(this.#sql.forgotten.get()?.["revision"]);
      checkRemembered(prefix, position, forgotten);
      const rows = this.#sql.changes.all(position, prefix, prefix + afterEveryKey) as unknown as Row[];
      const lastRow = rows.at(-1);
      return { rows, position: rows.length === pageSize && lastRow !== undefined ? lastRow.revision : this.#last() };
    });
  }

  async #change<Result>(attempted: string, action: () => Result): Promise<Result> {
    if (this.#closed) throw new Fault("unavailable", `${attempted}: the store is closed`);
    const written = this.#database.write(attempted, action);
    this.#pending.add(written);
    try {
      return await written;
    } finally {
      this.#pending.delete(written);
      this.#wake.ring();
    }
  }

  #row(key: string): Row | undefined {
    return this.#sql.get.get(key) as Row | undefined;
  }

  #last(): Revision {
    return Number(this.#sql.last.get()?.["revision"]);
  }

  #write(key: string, text: string | null): Revision {
    const revision = this.#last() + 1;
    this.#sql.write.run(key, text, revision);
    return revision;
  }

  /** The newest removal is always kept, since the highest revision in the table is the store's counter. */
  #forgetOldRemovals(): void {
    const oldest = this.#sql.oldest.get(Math.max(1, this.#rememberedRemovals));
    if (oldest === undefined) return;
    const revision = Number(oldest["revision"]);
    this.#sql.forget.run(revision);
    this.#sql.setForgotten.run(revision);
  }
}

function entryOf<Value>(row: Row): Entry<Value> {
  return { key: row.key, value: JSON.parse(row.value ?? "null") as Value, revision: row.revision };
}
