import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../base/fault.ts";
import { readLines } from "./line.ts";

/** `bytes` cut at these places. */
async function* cut(bytes: Uint8Array, places: readonly number[]): AsyncGenerator<Uint8Array> {
  let from = 0;
  for (const place of places.map((at) => at % (bytes.length + 1)).sort((left, right) => left - right)) {
    yield bytes.subarray(from, place);
    from = place;
  }
  yield bytes.subarray(from);
}

test("lines come out as they went in, wherever the stream is cut, also within a character", async () => {
  const line = fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\n") && text !== "");
  await fc.assert(
    fc.asyncProperty(fc.array(line), fc.array(fc.nat()), fc.boolean(), async (lines, places, ended) => {
      const text = lines.join("\n") + (ended && lines.length > 0 ? "\n" : "");
      const bytes = Buffer.from(text);
      const expected = lines.map((line) => Buffer.from(line).toString());
      assert.deepEqual(await Array.fromAsync(readLines(cut(bytes, places), 1 << 20)), expected);
    }),
  );
});

test("a line is refused as soon as it is longer than the limit", async () => {
  let taken = 0;
  const endless = async function* () {
    for (;;) {
      taken += 1;
      yield Buffer.alloc(10, 120);
    }
  };
  await assert.rejects(readLines(endless(), 100).next(), (error) => isFault(error, "exhausted"));
  assert.equal(taken, 11);
});
