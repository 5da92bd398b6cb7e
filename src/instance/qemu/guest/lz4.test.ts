import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { isFault } from "../../../base/fault.ts";
import { unpackLz4 } from "./lz4.ts";

/** The legacy frame around blocks. */
function frame(...blocks: readonly (readonly number[])[]): Uint8Array {
  const parts = [Buffer.from([0x02, 0x21, 0x4c, 0x18])];
  for (const block of blocks) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(block.length);
    parts.push(length, Buffer.from(block));
  }
  return Buffer.concat(parts);
}

async function unpacked(...blocks: readonly (readonly number[])[]): Promise<string> {
  return (await unpackLz4(frame(...blocks), 2 ** 20, backgroundCall())).toString("latin1");
}

const bytes = (text: string): number[] => [...Buffer.from(text, "latin1")];

test("literals, and blocks one after the other", async () => {
  assert.equal(await unpacked([0x30, ...bytes("abc")], [0x20, ...bytes("de")]), "abcde");
});

test("matches, also those that overlap what they make", async () => {
  // "abc", then 7 bytes from 3 back, then "x" alone.
  assert.equal(await unpacked([0x33, ...bytes("abc"), 3, 0, 0x10, ...bytes("x")]), "abcabcabcax");
});

test("lengths beyond 15 go on in bytes that are added", async () => {
  const long = "y".repeat(15 + 255 + 2);
  assert.equal(await unpacked([0xf0, 255, 2, ...bytes(long)]), long);
  assert.equal(await unpacked([0xf0, 0, ...bytes("z".repeat(15))]), "z".repeat(15));
  // One literal, then 4 + 15 + 255 + 1 of the same, then "b" alone.
  assert.equal(await unpacked([0x1f, ...bytes("a"), 1, 0, 255, 1, 0x10, ...bytes("b")]), `${"a".repeat(276)}b`);
});

test("what is damaged is corrupt", async () => {
  for (const block of [
    [0x50, 1],
    [0xf0, 255],
    [0x10, 1, 2, 0],
    [0x10, 1, 0, 0],
    [0x13, 1, 9],
  ]) {
    await assert.rejects(unpacked(block), (error) => isFault(error, "corrupt"), JSON.stringify(block));
  }
});
