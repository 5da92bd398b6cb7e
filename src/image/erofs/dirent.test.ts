import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { encodeDirents, measureDirents, type Dirent } from "./dirent.ts";
import { blockBytes } from "./format.ts";

const anyName = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map((bytes) => Buffer.from(bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x61 : byte))).toString("latin1"));

/** Reads directory data as the kernel does: block by block, a name ends at the next one's offset, a NUL or the block's end. */
function decode(data: Buffer): { name: string; inodeNumber: number }[] {
  const found: { name: string; inodeNumber: number }[] = [];
  for (let start = 0; start < data.length; start += blockBytes) {
    const block = data.subarray(start, start + blockBytes);
    const count = block.readUInt16LE(8) / 12;
    for (let index = 0; index < count; index += 1) {
      const from = block.readUInt16LE(index * 12 + 8);
      const to = index + 1 < count ? block.readUInt16LE((index + 1) * 12 + 8) : block.length;
      const text = block.toString("latin1", from, to);
      const nul = text.indexOf("\0");
      const name = nul === -1 ? text : text.slice(0, nul);
      found.push({ name, inodeNumber: Number(block.readBigUInt64LE(index * 12)) });
    }
  }
  return found;
}

test("directory blocks give back every name in the order of bytes", () => {
  fc.assert(
    fc.property(fc.uniqueArray(anyName, { minLength: 1, maxLength: 300 }), (names) => {
      const sorted = [...names].sort();
      assert.deepEqual(
        sorted,
        [...names].sort((left, right) => Buffer.compare(Buffer.from(left, "latin1"), Buffer.from(right, "latin1"))),
      );
      const entries = sorted.map((name, index): Dirent => ({ name, inodeNumber: index + 2 ** 33, type: "file" }));
      const data = encodeDirents(entries);
      assert.equal(data.length, measureDirents(sorted).sizeBytes);
      assert.deepEqual(
        decode(data),
        entries.map(({ name, inodeNumber }) => ({ name, inodeNumber })),
      );
    }),
    { numRuns: 100 },
  );
});
