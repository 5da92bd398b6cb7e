import assert from "node:assert/strict";
import { it } from "node:test";
import * as fc from "fast-check";
import { backgroundCall } from "../../../base/call.ts";
import { isFault } from "../../../base/fault.ts";
import { unpackLz4 } from "./lz4.ts";

/** What a block is made of: literal bytes, then a copy of what came before, from so far back. */
interface Sequence {
  readonly literals: Uint8Array;
  readonly distance: number;
  readonly length: number;
}

/** The part of a length that the token has no room for. */
function rest(length: number): number[] {
  if (length < 15) return [];
  const bytes = [];
  let left = length - 15;
  for (; left >= 255; left -= 255) bytes.push(255);
  return [...bytes, left];
}

/** A block that says so, and what it unpacks to. */
function encode(sequences: readonly Sequence[], last: Uint8Array): { packed: Buffer; plain: Buffer } {
  const packed: number[] = [];
  const plain: number[] = [];
  for (const { literals, distance, length } of sequences) {
    plain.push(...literals);
    const from = plain.length - Math.min(distance, plain.length);
    const copied = length + 4;
    packed.push((Math.min(literals.length, 15) << 4) | Math.min(length, 15), ...rest(literals.length), ...literals);
    packed.push((plain.length - from) & 0xff, (plain.length - from) >> 8, ...rest(length));
    for (let index = 0; index < copied; index += 1) plain.push(plain[from + index] ?? 0);
  }
  packed.push(Math.min(last.length, 15) << 4, ...rest(last.length), ...last);
  plain.push(...last);
  return { packed: Buffer.from(packed), plain: Buffer.from(plain) };
}

function frame(blocks: readonly Buffer[]): Buffer {
  const magic = Buffer.from("02214c18", "hex");
  return Buffer.concat([
    magic,
    ...blocks.flatMap((block) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(block.length);
      return [length, block];
    }),
  ]);
}

const sequence = fc.record({
  literals: fc.uint8Array({ minLength: 1, maxLength: 300 }),
  distance: fc.integer({ min: 1, max: 2000 }),
  length: fc.integer({ min: 0, max: 600 }),
});
const block = fc.tuple(fc.array(sequence, { maxLength: 8 }), fc.uint8Array({ maxLength: 40 }));
const call = backgroundCall();

it("unpacks blocks of any sequences, overlapping ones too, with whatever follows the last", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(block, { minLength: 1, maxLength: 3 }), async (blocks) => {
      const made = blocks.map(([sequences, last]) => encode(sequences, last));
      const packed = frame(made.map(({ packed }) => packed));
      const plain = Buffer.concat(made.map(({ plain }) => plain));
      assert.deepEqual(await unpackLz4(packed, 2 ** 20, call), plain);
      // A kernel image ends with its unpacked size.
      const size = Buffer.alloc(4);
      size.writeUInt32LE(0x7fff_ffff);
      assert.deepEqual(await unpackLz4(Buffer.concat([packed, size]), 2 ** 20, call), plain);
    }),
    { numRuns: 50 },
  );
});

function corrupt(error: unknown): boolean {
  return isFault(error, "corrupt");
}

it("refuses what is none, is damaged, or grows beyond its limit", async () => {
  await assert.rejects(unpackLz4(Buffer.from("no kernel"), 100, call), corrupt);
  // A copy of what was before the beginning.
  await assert.rejects(unpackLz4(frame([Buffer.from([0x10, 1, 9, 0])]), 100, call), corrupt);
  const { packed } = encode([{ literals: Buffer.from("a"), distance: 1, length: 500 }], Buffer.alloc(0));
  await assert.rejects(unpackLz4(frame([packed]), 100, call), corrupt);
});
