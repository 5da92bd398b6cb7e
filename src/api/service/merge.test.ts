import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { heapBytes } from "../../base/heap.fixture.ts";
import { Wake } from "../../base/wake.ts";
import { mergeAsTheyCome, mergeByTime } from "./merge.ts";

async function* from<Item>(items: readonly Item[]): AsyncGenerator<Item> {
  yield* items;
}

test("streams that end are merged in the order of their times, and nothing is lost", async () => {
  const times = fc.array(fc.nat(50)).map((list) => list.toSorted((left, right) => left - right));
  await fc.assert(
    fc.asyncProperty(fc.array(times, { maxLength: 5 }), async (streams) => {
      const merged = await Array.fromAsync(mergeByTime(streams.map(from), (time) => time));
      assert.deepEqual(
        merged,
        streams.flat().sort((left, right) => left - right),
      );
    }),
  );
});

test("endless streams do not wait for each other, and a failure of one ends the whole", async () => {
  const silence = new Wake();
  const never = new AbortController();
  const silent = async function* (): AsyncGenerator<number> {
    yield await silence.next(never.signal).then(() => {
      throw new Error("it broke");
    });
  };
  const merged = mergeAsTheyCome([silent(), from([1, 2])]);
  assert.equal((await merged.next()).value, 1);
  assert.equal((await merged.next()).value, 2);
  const next = merged.next();
  silence.ring();
  await assert.rejects(next, /it broke/);
});

async function* quiet(): AsyncGenerator<number> {
  yield await new Promise<number>(() => {});
}

async function* chatty(): AsyncGenerator<number> {
  for (let number = 0; ; number += 1) yield number;
}

test("a stream that stays quiet keeps nothing for all that the others say", async () => {
  const merged = mergeAsTheyCome([quiet(), chatty()]);
  const hear = async (count: number): Promise<number> => {
    for (let heard = 0; heard < count; heard += 1) await merged.next();
    return await heapBytes();
  };
  const before = await hear(1000);
  const growth = (await hear(40_000)) - before;
  assert.ok(growth < 40_000 * 100, `${growth} bytes`);
  await merged.return(undefined);
});
