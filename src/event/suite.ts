import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { backgroundCall, type Call, type Clock } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { TestClock } from "../base/test-clock.ts";
import type { Event, EventBus, NewEvent, Retention } from "./contract.ts";

/** How a driver opens a fresh, empty bus for one test; what is disposed of goes away with it. */
export type OpenBus = (clock: Clock, retention?: Retention) => AsyncDisposable & { readonly bus: EventBus };

/** The promises of the EventBus contract, which every driver keeps. */
export function eventSuite(driver: string, open: OpenBus): void {
  const call = backgroundCall();

  void describe(`events: ${driver}`, () => {
    void test("an event comes back as it was published, with its sequence and time", async () => {
      const clock = new TestClock(1_000);
      await using opened = open(clock);
      const first = await opened.bus.publish(eventOf("instance.started", { pid: "42" }));
      await clock.advance(500);
      const second = await opened.bus.publish(eventOf("image.pulled"));
      assert.deepEqual([first.sequence, first.timeMs], [1, 1_000]);
      assert.deepEqual([second.sequence, second.timeMs], [2, 1_500]);
      assert.deepEqual(await take(opened.bus.subscribe([], 0, call), 2), [first, second]);
    });

    void test("events published at once are numbered in their order, without gaps", async () => {
      await using opened = open(new TestClock());
      const published = await Promise.all(
        Array.from({ length: 300 }, (_, index) => opened.bus.publish(eventOf(`made.${index}`))),
      );
      assert.deepEqual(
        published.map((event) => event.sequence),
        Array.from({ length: 300 }, (_, index) => index + 1),
      );
      assert.deepEqual(await take(opened.bus.subscribe([], 0, call), 300), published);
    });

    void test("a subscriber that comes back misses nothing and sees nothing twice", async () => {
      await using opened = open(new TestClock());
      for (let index = 0; index < 5; index += 1) await opened.bus.publish(eventOf(`made.${index}`));
      const seen = await take(opened.bus.subscribe([], 0, call), 2);
      for (let index = 5; index < 8; index += 1) await opened.bus.publish(eventOf(`made.${index}`));
      const more = await take(opened.bus.subscribe([], seen.at(-1)?.sequence ?? 0, call), 6);
      assert.deepEqual(
        [...seen, ...more].map((event) => event.kind),
        Array.from({ length: 8 }, (_, index) => `made.${index}`),
      );
    });

    void test('"now" is the moment of the call, not of the first read', async () => {
      await using opened = open(new TestClock());
      await opened.bus.publish(eventOf("before"));
      const events = opened.bus.subscribe([], "now", call);
      const after = await opened.bus.publish(eventOf("after"));
      assert.deepEqual(await take(events, 1), [after]);
    });

    void test("kinds are prefixes, and none means all", async () => {
      await using opened = open(new TestClock());
      const events = opened.bus.subscribe(["instance.", "image.pulled"], "now", call);
      for (const kind of ["image.removed", "instance.started", "instances", "image.pulled", "instance.exited"]) {
        await opened.bus.publish(eventOf(kind));
      }
      assert.deepEqual(
        (await take(events, 3)).map((event) => event.kind),
        ["instance.started", "image.pulled", "instance.exited"],
      );
    });

    void test("every subscriber gets every event as it comes", async () => {
      await using opened = open(new TestClock());
      const subscribers = Array.from({ length: 10 }, () => take(opened.bus.subscribe([], "now", call), 700));
      for (let index = 0; index < 700; index += 7) {
        await Promise.all(Array.from({ length: 7 }, (_, offset) => opened.bus.publish(eventOf(`e.${index + offset}`))));
      }
      for (const events of await Promise.all(subscribers)) {
        assert.deepEqual(
          events.map((event) => event.sequence),
          Array.from({ length: 700 }, (_, index) => index + 1),
        );
      }
    });

    void test("beyond the count kept, the oldest go, and who needs them is told where to begin", async () => {
      await using opened = open(new TestClock(), { count: 100, ageMs: 1e9 });
      await publishMany(opened.bus, 2_000);
      const oldest = await firstKept(opened.bus, call);
      assert.ok(oldest > 1 && 2_000 - oldest >= 100 - 1, `${oldest} to 2000 are kept`);
      assert.ok(2_000 - oldest < 1_000, `${oldest} to 2000 are kept`);
      const rest = await take(opened.bus.subscribe([], oldest - 1, call), 2_000 - oldest + 1);
      assert.equal(rest.at(-1)?.sequence, 2_000);
    });

    void test("what is too old goes, and numbering goes on", async () => {
      const clock = new TestClock();
      await using opened = open(clock, { count: 1e6, ageMs: 1_000 });
      await publishMany(opened.bus, 1_000);
      await clock.advance(5_000);
      await publishMany(opened.bus, 600);
      assert.equal(await firstKept(opened.bus, call), 1_001);
      assert.equal((await opened.bus.publish(eventOf("more"))).sequence, 1_601);
    });

    void test("a subscriber that falls behind what is kept is told, instead of missing events", async () => {
      await using opened = open(new TestClock(), { count: 10, ageMs: 1e9 });
      await publishMany(opened.bus, 300);
      const slow = opened.bus.subscribe([], 0, call)[Symbol.asyncIterator]();
      assert.equal((await slow.next()).value?.sequence, 1);
      await publishMany(opened.bus, 2_000);
      let last = 1;
      await assert.rejects(
        async () => {
          for (;;) {
            const next = await slow.next();
            assert.equal(next.value?.sequence, last + 1);
            last += 1;
          }
        },
        (thrown) => isFault(thrown, "exhausted"),
      );
      assert.ok(last < 2_000);
    });

    void test("a sequence that has not happened yet is refused", async () => {
      await using opened = open(new TestClock());
      await opened.bus.publish(eventOf("made"));
      await assert.rejects(take(opened.bus.subscribe([], 2, call), 1), (thrown) => isFault(thrown, "invalid"));
    });

    void test("a subscription throws when its call is cancelled and ends when the bus closes", async () => {
      await using opened = open(new TestClock());
      const controller = new AbortController();
      const cancelled = take(opened.bus.subscribe([], 0, backgroundCall(call.clock, controller.signal)), 1);
      const ended = take(opened.bus.subscribe([], 0, call), 1);
      controller.abort();
      await assert.rejects(cancelled, (thrown) => isFault(thrown, "cancelled"));
      await opened.bus.close();
      assert.deepEqual(await ended, []);
      await assert.rejects(opened.bus.publish(eventOf("late")), (thrown) => isFault(thrown, "unavailable"));
    });
  });
}

function eventOf(kind: string, detail?: Readonly<Record<string, string>>): NewEvent {
  const event = { kind, subject: "shop/web-1", message: "Something happened." };
  return detail === undefined ? event : { ...event, detail };
}

async function publishMany(bus: EventBus, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, index) => bus.publish(eventOf(`many.${index}`))));
}

/** The first `count` events, or all until the subscription ends. */
async function take(events: AsyncIterable<Event>, count: number): Promise<readonly Event[]> {
  const taken: Event[] = [];
  for await (const event of events) {
    taken.push(event);
    if (taken.length === count) break;
  }
  return taken;
}

/** The oldest sequence that is kept, as the refusal of an older one says it. */
async function firstKept(bus: EventBus, call: Call): Promise<number> {
  try {
    await take(bus.subscribe([], 0, call), 1);
  } catch (thrown) {
    if (isFault(thrown, "exhausted")) return Number(thrown.detail["oldest"]);
    throw thrown;
  }
  return 1;
}
