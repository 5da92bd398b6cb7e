import assert from "node:assert/strict";
import { it } from "node:test";
import * as fc from "fast-check";
import { LineReader, parseEntry } from "./log-line.ts";

const time = "2026-11-21T03:16:38.369654321+00:00";
const timeMs = Date.parse("2026-11-21T03:16:38.369Z");

it("parses an entry, and refuses a torn one", () => {
  assert.deepEqual(parseEntry(Buffer.from(`${time} stderr F a b`)), {
    timeMs,
    stream: "stderr",
    whole: true,
    bytes: Buffer.from("a b"),
  });
  assert.equal(parseEntry(Buffer.from(`${time} stdout P `))?.whole, false);
  assert.equal(parseEntry(Buffer.from(`${time} stdout F`))?.bytes.length, 0);
  for (const torn of ["", "2026-11-21", `${time} stdin F x`, `${time} stdout X x`, "x".repeat(100)]) {
    assert.equal(parseEntry(Buffer.from(torn)), undefined, torn);
  }
});

/** A line as a program writes it, cut in pieces as conmon reads it. */
const line = fc.record({
  stream: fc.constantFrom("stdout" as const, "stderr" as const),
  pieces: fc.array(
    fc.uint8Array({ maxLength: 40 }).map((bytes) => bytes.map((byte) => (byte === 10 ? 11 : byte))),
    {
      minLength: 1,
      maxLength: 4,
    },
  ),
});

it("gives back the lines of a program, however they are cut and however they are read", () => {
  fc.assert(
    fc.property(fc.array(line, { maxLength: 20 }), fc.integer({ min: 1, max: 50 }), (program, readBytes) => {
      const log = Buffer.concat(
        program.flatMap(({ stream, pieces }) =>
          pieces.flatMap((piece, index) => [
            Buffer.from(`${time} ${stream} ${index === pieces.length - 1 ? "F" : "P"} `),
            Buffer.from(piece),
            Buffer.from("\n"),
          ]),
        ),
      );
      const reader = new LineReader();
      const found = [];
      for (let at = 0; at < log.length; at += readBytes) found.push(...reader.take(log.subarray(at, at + readBytes)));
      assert.deepEqual(reader.flush(), []);
      assert.deepEqual(
        found.map(({ stream, bytes, partial }) => ({ stream, text: Buffer.from(bytes).toString("hex"), partial })),
        program.map(({ stream, pieces }) => ({ stream, text: Buffer.concat(pieces).toString("hex"), partial: false })),
      );
    }),
  );
});

it("shows a line without end when asked, and what follows as another one", () => {
  const reader = new LineReader();
  assert.deepEqual(reader.take(Buffer.from(`${time} stdout P name: \n`)), []);
  assert.deepEqual(
    reader.flush().map(({ bytes, partial }) => [Buffer.from(bytes).toString(), partial]),
    [["name: ", true]],
  );
  assert.deepEqual(
    reader.take(Buffer.from(`${time} stdout F you\n`)).map(({ bytes }) => Buffer.from(bytes).toString()),
    ["you"],
  );
});

it("shows a line that never ends in pieces, and does not keep it all", () => {
  const reader = new LineReader();
  const piece = Buffer.from(`${time} stdout P ${"x".repeat(8192)}\n`);
  const found = Array.from({ length: 100 }, () => reader.take(piece)).flat();
  assert.ok(found.length >= 2);
  assert.ok(found.every(({ partial }) => partial));
});
