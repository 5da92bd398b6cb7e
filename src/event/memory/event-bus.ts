import { throwIfCancelled, type Call, type Clock } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Wake } from "../../base/wake.ts";
import { defaultRetention, type Event, type EventBus, type NewEvent, type Retention } from "../contract.ts";
import { checkPosition, kindMatches } from "../position.ts";

/** Dropping from the front of an array costs its length, so it is done once per this many events. */
const trimEvery = 512;

/** An EventBus that forgets everything with the process: for tests. */
export class MemoryEventBus implements EventBus {
  readonly #clock: Clock;
  readonly #retention: Retention;
  readonly #wake = new Wake();
  #events: Event[] = [];
  #last = 0;
  #closed = false;

  constructor(clock: Clock, retention: Retention = defaultRetention) {
    this.#clock = clock;
    this.#retention = retention;
  }

  async publish(event: NewEvent): Promise<Event> {
    if (this.#closed) throw new Fault("unavailable", `record the event ${event.kind}: the bus is closed`);
    this.#last += 1;
    const recorded = { ...event, sequence: this.#last, timeMs: this.#clock.nowMs() };
    this.#events.push(recorded);
    if (this.#last % trimEvery === 0) this.#trim(recorded.timeMs);
    this.#wake.ring();
    return recorded;
  }

  subscribe(kinds: readonly string[], after: number | "now", call: Call): AsyncIterable<Event> {
    return this.#follow(kinds, after === "now" ? this.#last : after, call);
  }

  last(): number {
    return this.#last;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake.ring();
  }

  async *#follow(kinds: readonly string[], after: number, call: Call): AsyncIterable<Event> {
    let position = after;
    while (!this.#closed) {
      throwIfCancelled(call);
      const oldest = this.#events[0]?.sequence ?? 1;
      checkPosition(position, oldest, this.#last);
      const event = this.#events[position + 1 - oldest];
      if (event === undefined) {
        await this.#wake.next(call.signal);
        continue;
      }
      position = event.sequence;
      if (kindMatches(event.kind, kinds)) yield event;
    }
  }

  #trim(nowMs: number): void {
    const oldestTimeMs = nowMs - this.#retention.ageMs;
    const young = this.#events.findIndex((event) => event.timeMs >= oldestTimeMs);
    this.#events = this.#events.slice(
      Math.min(this.#events.length - 1, Math.max(young, this.#events.length - this.#retention.count)),
    );
  }
}
