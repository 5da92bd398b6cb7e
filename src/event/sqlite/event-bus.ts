import { setImmediate as nextTurn } from "node:timers/promises";
import { throwIfCancelled, type Call, type Clock } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Wake } from "../../base/wake.ts";
import type { Database } from "../../store/sqlite/database.ts";
import { defaultRetention, type Event, type EventBus, type NewEvent, type Retention } from "../contract.ts";
import { checkPosition, kindMatches } from "../position.ts";

/** A subscriber reads this many events at a time from the file, so that one that lags costs no memory. */
const pageSize = 256;

/** Old events are dropped once per this many new ones; a bus therefore keeps up to this many more than asked for. */
const trimEvery = 512;

interface Row {
  readonly sequence: number;
  readonly time_ms: number;
  readonly kind: string;
  readonly subject: string;
  readonly message: string;
  readonly detail: string | null;
}

/**
 * The EventBus in the daemon's one SQLite file. The database is opened and closed by whoever made it; it gathers events
 * published in the same turn into one transaction.
 */
export class SqliteEventBus implements EventBus {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #retention: Retention;
  readonly #wake = new Wake();
  readonly #sql;
  #pending = new Set<Promise<unknown>>();
  #closed = false;

  constructor(database: Database, clock: Clock, retention: Retention = defaultRetention) {
    this.#database = database;
    this.#clock = clock;
    this.#retention = retention;
    this.#sql = {
      insert: database.prepare(
        `insert into event (sequence, time_ms, kind, subject, message, detail)
         values ((select coalesce(max(sequence), 0) + 1 from event), ?, ?, ?, ?, ?) returning sequence`,
      ),
      bounds: database.prepare(
        `select (select min(sequence) from event) as oldest, (select max(sequence) from event) as last`,
      ),
      page: database.prepare(`select * from event where sequence > ? order by sequence limit ${pageSize}`),
      trimCount: database.prepare("delete from event where sequence <= ?"),
      // Times follow the sequence unless the wall clock was set back; stopping at the first young event is right then too.
      young: database.prepare("select min(sequence) as sequence from event where time_ms >= ?"),
    };
  }

  async publish(event: NewEvent): Promise<Event> {
    const attempted = `record the event ${event.kind} of ${event.subject}`;
    if (this.#closed) throw new Fault("unavailable", `${attempted}: the bus is closed`);
    const timeMs = this.#clock.nowMs();
    const detail = event.detail === undefined ? null : JSON.stringify(event.detail);
    const written = this.#database.write(attempted, () => {
      const row = this.#sql.insert.get(timeMs, event.kind, event.subject, event.message, detail);
      const sequence = Number(row?.["sequence"]);
      if (sequence % trimEvery === 0) this.#trim(sequence, timeMs);
      return sequence;
    });
    this.#pending.add(written);
    try {
      return { ...event, sequence: await written, timeMs };
    } finally {
      this.#pending.delete(written);
      this.#wake.ring();
    }
  }

  subscribe(kinds: readonly string[], after: number | "now", call: Call): AsyncIterable<Event> {
    // Decided here and not at the first read, so that "now" means this call.
    return this.#follow(kinds, after === "now" ? this.#bounds().last : after, call);
  }

  last(): number {
    return this.#bounds().last;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#pending);
    this.#wake.ring();
  }

  async *#follow(kinds: readonly string[], after: number, call: Call): AsyncIterable<Event> {
    let position = after;
    while (!this.#closed) {
      throwIfCancelled(call);
      const page = this.#page(position);
      position = page.at(-1)?.sequence ?? position;
      for (const row of page) if (kindMatches(row.kind, kinds)) yield eventOf(row);
      if (page.length > 0) await nextTurn(); // Reading far behind must not hold the event loop.
      else if (!this.#closed) await this.#wake.next(call.signal);
    }
  }

  #page(position: number): readonly Row[] {
    return this.#database.read("read events", () => {
      const { oldest, last } = this.#bounds();
      checkPosition(position, oldest, last);
      return this.#sql.page.all(position) as unknown as Row[];
    });
  }

  #bounds(): { readonly oldest: number; readonly last: number } {
    const row = this.#database.read("read events", () => this.#sql.bounds.get());
    return { oldest: Number(row?.["oldest"] ?? 1), last: Number(row?.["last"] ?? 0) };
  }

  /** Runs inside the transaction that adds event `last`. */
  #trim(last: number, nowMs: number): void {
    const young = Number(this.#sql.young.get(nowMs - this.#retention.ageMs)?.["sequence"] ?? last);
    this.#sql.trimCount.run(Math.min(last - 1, Math.max(last - this.#retention.count, young - 1)));
  }
}

function eventOf({ sequence, time_ms: timeMs, kind, subject, message, detail }: Row): Event {
  const event = { kind, subject, message, sequence, timeMs };
  return detail === null ? event : { ...event, detail: JSON.parse(detail) as Readonly<Record<string, string>> };
}
