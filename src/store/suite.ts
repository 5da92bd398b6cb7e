import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "fast-check";
import { backgroundCall, type Call } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import type { Change, Revision, Store } from "./contract.ts";

/** How a driver opens a fresh, empty store for one test; what is disposed of goes away with it. */
export type OpenStore = (options: { readonly rememberedRemovals?: number }) => AsyncDisposable & {
  readonly store: Store;
};

/** The promises of the Store contract, which every driver keeps. */
export function storeSuite(driver: string, open: OpenStore): void {
  const call = backgroundCall();

  void describe(`store: ${driver}`, () => {
    void test("a value comes back as it was put, under a revision that grows", async () => {
      await using opened = open({});
      const { store } = opened;
      const value = { name: "shop", list: [1, 2.5, null, true], nested: { ключ: "значение\u0000" } };
      const first = await store.put("stack/shop/current", value, "absent", call);
      const second = await store.put("stack/blog/current", null, "absent", call);
      assert.ok(second > first && first > 0);
      assert.deepEqual(await store.get("stack/shop/current", call), {
        key: "stack/shop/current",
        value,
        revision: first,
      });
      assert.deepEqual(await store.get("stack/blog/current", call), {
        key: "stack/blog/current",
        value: null,
        revision: second,
      });
      assert.equal(await store.get("stack/none", call), undefined);
    });

    void test("a put whose expectation is wrong is a conflict and writes nothing", async () => {
      await using opened = open({});
      const { store } = opened;
      const first = await store.put("a", 1, "absent", call);
      await assert.rejects(store.put("a", 2, "absent", call), (thrown) => isFault(thrown, "conflict"));
      await assert.rejects(store.put("b", 2, first, call), (thrown) => isFault(thrown, "conflict"));
      const second = await store.put("a", 2, first, call);
      await assert.rejects(store.put("a", 3, first, call), (thrown) => isFault(thrown, "conflict"));
      await assert.rejects(store.remove("a", first, call), (thrown) => isFault(thrown, "conflict"));
      assert.deepEqual(await store.list("", call), [{ key: "a", value: 2, revision: second }]);
    });

    void test("of many who compare and set at once, exactly one wins", async () => {
      await using opened = open({});
      const { store } = opened;
      const base = await store.put("pointer", 0, "absent", call);
      const outcomes = await Promise.allSettled(
        Array.from({ length: 50 }, (_, index) => store.put("pointer", index + 1, base, call)),
      );
      const won = outcomes.filter((outcome) => outcome.status === "fulfilled");
      assert.equal(won.length, 1);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") assert.ok(isFault(outcome.reason, "conflict"));
      }
      assert.equal((await store.get("pointer", call))?.revision, won[0]?.value);
    });

    void test("removing is idempotent, and a removed key is absent again", async () => {
      await using opened = open({});
      const { store } = opened;
      const first = await store.put("a", 1, "absent", call);
      await store.remove("a", first, call);
      await store.remove("a", first, call);
      await store.remove("never", "any", call);
      assert.equal(await store.get("a", call), undefined);
      assert.deepEqual(await store.list("", call), []);
      const again = await store.put("a", 2, "absent", call);
      assert.ok(again > first + 1, "the removal took a revision of its own");
    });

    void test("a list is the prefix's entries and no others, in key order", async () => {
      await using opened = open({});
      const { store } = opened;
      const keys = ["s/b", "s/a/z", "s/a", "t/a", "s", "s/~", "s/A", "s-x"];
      await Promise.all(keys.map((key) => store.put(key, key, "absent", call)));
      const listed = async (prefix: string): Promise<string[]> =>
        (await store.list<string>(prefix, call)).map((entry) => entry.key);
      assert.deepEqual(await listed("s/"), ["s/A", "s/a", "s/a/z", "s/b", "s/~"]);
      assert.deepEqual(await listed(""), [...keys].sort());
      assert.deepEqual(await listed("none/"), []);
    });

    for (const key of ["", "/a", "a/", "a//b", "a b", "a\n", "é", "a\u0000", "x".repeat(513)]) {
      void test(`a key like ${JSON.stringify(key.slice(0, 8))} is refused`, async () => {
        await using opened = open({});
        await assert.rejects(opened.store.put(key, 1, "any", call), (thrown) => isFault(thrown, "invalid"));
        await assert.rejects(opened.store.get(key, call), (thrown) => isFault(thrown, "invalid"));
        await assert.rejects(opened.store.remove(key, "any", call), (thrown) => isFault(thrown, "invalid"));
      });
    }

    void test("what JSON cannot say is refused", async () => {
      await using opened = open({});
      const circle: { self?: unknown } = {};
      circle.self = circle;
      for (const value of [undefined, () => 1, 1n, circle]) {
        await assert.rejects(opened.store.put("a", value, "any", call), (thrown) => isFault(thrown, "invalid"));
      }
      assert.deepEqual(await opened.store.list("", call), []);
    });

    void test("a cancelled call changes nothing", async () => {
      await using opened = open({});
      const cancelled = backgroundCall(call.clock, AbortSignal.abort());
      await assert.rejects(opened.store.put("a", 1, "any", cancelled), (thrown) => isFault(thrown, "cancelled"));
      assert.equal(await opened.store.get("a", call), undefined);
    });

    void test("a watch from 0 gives what is there, then what comes, of its prefix only", async () => {
      await using opened = open({});
      const { store } = opened;
      const a = await store.put("s/a", 1, "absent", call);
      await store.put("t/a", 1, "absent", call);
      const changes = store.watch<number>("s/", 0, call)[Symbol.asyncIterator]();
      assert.deepEqual((await changes.next()).value, { kind: "put", key: "s/a", value: 1, revision: a });
      const later = changes.next();
      await store.put("t/b", 2, "absent", call);
      const b = await store.put("s/b", 2, "absent", call);
      assert.deepEqual((await later).value, { kind: "put", key: "s/b", value: 2, revision: b });
      await store.remove("s/a", a, call);
      assert.deepEqual((await changes.next()).value, { kind: "remove", key: "s/a", revision: b + 1 });
    });

    void test("a watch ends when the store closes, and throws when its call is cancelled", async () => {
      await using opened = open({});
      const { store } = opened;
      const controller = new AbortController();
      const cancelled = store.watch("", 0, backgroundCall(call.clock, controller.signal))[Symbol.asyncIterator]();
      const waiting = cancelled.next();
      controller.abort();
      await assert.rejects(Promise.resolve(waiting), (thrown) => isFault(thrown, "cancelled"));
      const ended = store.watch("", 0, call)[Symbol.asyncIterator]().next();
      await store.close();
      assert.equal((await ended).done, true);
      await assert.rejects(store.put("a", 1, "any", call), (thrown) => isFault(thrown, "unavailable"));
    });

    void test("a watcher that comes back too late is told so, and one from 0 is not", async () => {
      await using opened = open({ rememberedRemovals: 3 });
      const { store } = opened;
      const start = await store.put("keep", 0, "absent", call);
      for (let index = 0; index < 6; index += 1) {
        await store.put(`gone/${index}`, index, "absent", call);
        await store.remove(`gone/${index}`, "any", call);
      }
      await assert.rejects(collect(store, "", start, call), (thrown) => isFault(thrown, "exhausted"));
      const seen = await collect(store, "", 0, call);
      assert.deepEqual(
        seen.map((change) => `${change.kind} ${change.key}`),
        ["put keep", "remove gone/3", "remove gone/4", "remove gone/5"],
      );
    });

    void test("under any interleaving the store is a map, and watchers end up with the same map", async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(turn, { maxLength: 40 }), async (turns) => {
          await using opened = open({});
          await followsTheModel(opened.store, turns, call);
        }),
        { numRuns: 60 },
      );
    });
  });
}

type Step =
  | { readonly verb: "put"; readonly key: string; readonly expected: "absent" | "any" | "current" | "stale" }
  | { readonly verb: "remove"; readonly key: string; readonly expected: "any" | "current" | "stale" };

const key = fc.constantFrom("a", "a/b", "a/c", "b", "b/d");
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    verb: fc.constant("put" as const),
    key,
    expected: fc.constantFrom("absent" as const, "any" as const, "current" as const, "stale" as const),
  }),
  fc.record({
    verb: fc.constant("remove" as const),
    key,
    expected: fc.constantFrom("any" as const, "current" as const, "stale" as const),
  }),
);
/** Steps that are asked for at once, without waiting for each other. */
const turn = fc.array(step, { minLength: 1, maxLength: 6 });

/**
 * Runs every turn against the store and against a Map. Steps of one turn are decided on what was there before the turn,
 * so a later one may lose; the store applies them in the order they were asked for.
 */
async function followsTheModel(store: Store, turns: readonly (readonly Step[])[], call: Call): Promise<void> {
  const model = new Map<string, { readonly value: number; readonly revision: Revision }>();
  const watchers = ["", "a/"].map((prefix) => ({ prefix, changes: collect(store, prefix, 0, call, true) }));
  let value = 0;
  let last = 0;
  for (const steps of turns) {
    const before = new Map(model);
    const asked = steps.map((step) => {
      const current = before.get(step.key)?.revision;
      const expected =
        step.expected === "current" ? (current ?? "any") : step.expected === "stale" ? 999_999 : step.expected;
      value += 1;
      const outcome =
        step.verb === "put"
          ? store.put(step.key, value, expected, call)
          : store.remove(step.key, expected === "absent" ? "any" : expected, call);
      return { step, expected, value, outcome };
    });
    const outcomes = await Promise.allSettled(asked.map(({ outcome }) => outcome));
    for (const [index, { step, expected, value }] of asked.entries()) {
      const outcome = outcomes[index];
      const found = model.get(step.key)?.revision ?? "absent";
      const vacuous = step.verb === "remove" && found === "absent";
      if (!vacuous && expected !== "any" && expected !== found) {
        assert.ok(outcome?.status === "rejected" && isFault(outcome.reason, "conflict"));
        continue;
      }
      assert.equal(outcome?.status, "fulfilled");
      if (vacuous) continue;
      last += 1;
      if (step.verb === "remove") model.delete(step.key);
      else {
        assert.equal(outcome.value, last, "revisions grow by one with each change");
        model.set(step.key, { value, revision: last });
      }
    }
    assert.deepEqual(
      await store.list("", call),
      [...model]
        .map(([key, { value, revision }]) => ({ key, value, revision }))
        .sort((left, right) => (left.key < right.key ? -1 : 1)),
    );
  }
  // One more change per prefix, so that every watcher has something to stop at.
  await store.put("a/end", "end", "any", call);
  for (const { prefix, changes } of watchers) await assertReplays(prefix, await changes, model);
}

async function assertReplays(
  prefix: string,
  changes: readonly Change<unknown>[],
  model: ReadonlyMap<string, { readonly value: number; readonly revision: Revision }>,
): Promise<void> {
  const replayed = new Map<string, unknown>();
  let position = 0;
  for (const change of changes) {
    assert.ok(change.revision > position, "changes come in the order of their revisions");
    assert.ok(change.key.startsWith(prefix));
    position = change.revision;
    if (change.kind === "put") replayed.set(change.key, change.value);
    else replayed.delete(change.key);
  }
  replayed.delete("a/end");
  const expected = [...model].filter(([key]) => key.startsWith(prefix)).map(([key, row]) => [key, row.value] as const);
  assert.deepEqual(replayed, new Map(expected));
}

/** Everything a watch gives until `a/end` comes, or, unless `follow`, until it would have to wait. */
async function collect(
  store: Store,
  prefix: string,
  after: Revision,
  call: Call,
  follow = false,
): Promise<readonly Change<unknown>[]> {
  const changes: Change<unknown>[] = [];
  const controller = new AbortController();
  const watch = store.watch(prefix, after, { ...call, signal: controller.signal })[Symbol.asyncIterator]();
  if (!follow) setImmediate(() => controller.abort());
  try {
    for (let next = await watch.next(); next.done !== true; next = await watch.next()) {
      changes.push(next.value);
      if (next.value.key === "a/end") break;
    }
  } catch (thrown) {
    if (follow || !isFault(thrown, "cancelled")) throw thrown;
  }
  await watch.return?.();
  return changes;
}
