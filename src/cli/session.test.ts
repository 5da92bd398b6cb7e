import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { heapBytes } from "../base/heap.fixture.ts";
import type { Context } from "./context.ts";
import { converse, detached, type SessionAnswer, type SessionOptions } from "./session.ts";

const plain: SessionOptions = { tty: false, input: false, detachable: false, signalsEndUs: true };

/** A session in which the daemon says this, on a screen and a keyboard that are not there. */
function hearing(answers: AsyncIterable<SessionAnswer>, options: Partial<SessionOptions> = {}) {
  const keyboard = new PassThrough();
  const out = { write: async () => {} };
  const duplex = { send: async () => {}, end: () => {}, [Symbol.asyncIterator]: () => answers[Symbol.asyncIterator]() };
  const context = { keyboard, out, err: out } as unknown as Context;
  return { keyboard, ended: converse(duplex, { ...plain, ...options }, context) };
}

test("what a program writes takes no memory when it was shown", async () => {
  let growth = 0;
  const dump = async function* (): AsyncGenerator<SessionAnswer> {
    let before = 0;
    for (let count = 0; count < 41_000; count += 1) {
      if (count === 1000) before = await heapBytes();
      yield { output: { stdout: "aGVsbG8=" } };
    }
    growth = (await heapBytes()) - before;
    yield { exit: 4 };
  };
  assert.equal(await hearing(dump()).ended, 4);
  assert.ok(growth < 40_000 * 100, `${growth} bytes`);
});

async function* silent(): AsyncGenerator<SessionAnswer> {
  yield { output: { stdout: "aGVsbG8=" } };
  await new Promise(() => {});
}

test("who leaves a program that says nothing is let go at once", async () => {
  const { keyboard, ended } = hearing(silent(), { tty: true, input: true, detachable: true });
  setImmediate(() => keyboard.write(Buffer.from([0x10, 0x11])));
  assert.equal(await ended, detached);
});
