import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { settled, TestClock } from "../../base/test-clock.ts";
import { merged } from "./merged.ts";

/** Reads all of it into texts, `stdout one` each; `done` when it ended. */
function gather(pieces: AsyncIterable<{ readonly stream: string; readonly bytes: Uint8Array }>): {
  readonly texts: string[];
  done: boolean;
} {
  const gathered = { texts: [] as string[], done: false };
  void (async () => {
    for await (const { stream, bytes } of pieces) gathered.texts.push(`${stream} ${Buffer.from(bytes).toString()}`);
    gathered.done = true;
  })();
  return gathered;
}

test("both streams come in order of arrival, and end with the later one", async () => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const gathered = gather(merged(stdout, stderr));
  stdout.write("one");
  await settled();
  stderr.end("two");
  await settled();
  assert.equal(gathered.done, false);
  stdout.end("three");
  await settled();
  await settled();
  assert.deepEqual(gathered, { texts: ["stdout one", "stderr two", "stdout three"], done: true });
});

test("what a program left behind does not keep its output open, and all that it wrote is read", async () => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const clock = new TestClock();
  const { promise: exited, resolve: exit } = Promise.withResolvers<void>();
  const gathered = gather(merged(stdout, stderr, { exited, clock }));
  stdout.write("one");
  await clock.advance(60_000);
  assert.equal(gathered.done, false, "a program may be silent for long");
  exit();
  await clock.advance(400);
  stdout.write("two");
  await clock.advance(400);
  stdout.write("three");
  await clock.advance(400);
  assert.deepEqual(gathered, { texts: ["stdout one", "stdout two", "stdout three"], done: false });
  await clock.advance(500);
  await settled();
  assert.equal(gathered.done, true);
  assert.deepEqual([stdout.destroyed, stderr.destroyed, clock.waiting], [true, true, 0]);
});
