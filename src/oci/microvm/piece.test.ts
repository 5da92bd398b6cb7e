import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { type Piece, pieceKinds, pieceOf, PieceReader } from "./piece.ts";

test("pieces arrive whole, in order, however they are cut", () => {
  const piece = fc.record({ kind: fc.constantFrom(...pieceKinds), bytes: fc.uint8Array({ maxLength: 40 }) });
  fc.assert(
    fc.property(fc.array(piece), fc.integer({ min: 1, max: 20 }), (pieces, step) => {
      const whole = Buffer.concat(pieces.map(({ kind, bytes }) => pieceOf(kind, bytes)));
      const reader = new PieceReader();
      const found: Piece[] = [];
      for (let at = 0; at < whole.length; at += step) found.push(...reader.take(whole.subarray(at, at + step)));
      assert.deepEqual(
        found.map(({ kind, bytes }) => [kind, [...bytes]]),
        pieces.map(({ kind, bytes }) => [kind, [...bytes]]),
      );
    }),
  );
});

test("what cannot be a piece is refused and not waited for", () => {
  for (const bytes of [
    [99, 0, 0, 0, 0],
    [1, 255, 255, 255, 255],
  ]) {
    assert.throws(() => new PieceReader().take(Uint8Array.from(bytes)));
  }
});
