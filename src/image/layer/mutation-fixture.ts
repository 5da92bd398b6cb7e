import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { withChecksum } from "./tar-fixture.ts";
import { tarBlockBytes } from "./tar-header.ts";

/** For tests: archives that real programs wrote, and ways to damage them that can be repeated by their seed. */

export function corpus(): { readonly name: string; readonly path: string }[] {
  const folder = fileURLToPath(new URL("./corpus", import.meta.url));
  return readdirSync(folder)
    .sort()
    .map((name) => ({ name, path: join(folder, name) }));
}

/** Bytes that mean something to a tar: digits, separators, type flags, signs of base 256. */
const telling = Buffer.from("\0\x80\xff/. 01234567xgLKSD\n=,", "latin1");

export function* mutations(
  original: Buffer,
  count: number,
): Generator<{ readonly seed: number; readonly bytes: Buffer }> {
  for (let seed = 1; seed <= count; seed += 1) yield { seed, bytes: mutate(original, randomFrom(seed)) };
}

function mutate(original: Buffer, random: (below: number) => number): Buffer {
  let bytes: Buffer = Buffer.from(original);
  const rounds = 1 + random(4);
  for (let round = 0; round < rounds; round += 1) {
    const at = random(bytes.length);
    const block = at - (at % tarBlockBytes);
    switch (random(6)) {
      case 0:
        bytes.writeUInt8(random(256), at);
        break;
      case 1:
        bytes.writeUInt8(telling[random(telling.length)] ?? 0, at);
        break;
      case 2:
        // Within the fields of a header, where a single byte says most.
        bytes.writeUInt8(
          telling[random(telling.length)] ?? 0,
          Math.min(block + random(tarBlockBytes), bytes.length - 1),
        );
        break;
      case 3:
        bytes = Buffer.from(bytes.subarray(0, at + 1));
        break;
      case 4: {
        const other = random(Math.ceil(bytes.length / tarBlockBytes)) * tarBlockBytes;
        bytes.copy(bytes, block, other, other + tarBlockBytes);
        break;
      }
      default:
        bytes = Buffer.concat([bytes.subarray(0, block), bytes.subarray(block + tarBlockBytes)]);
        if (bytes.length === 0) return bytes;
    }
    // A damaged header with a true checksum reaches what a wrong one would hide.
    if (random(2) === 0) repair(bytes, block);
  }
  return bytes;
}

function repair(bytes: Buffer, block: number): void {
  if (block + tarBlockBytes <= bytes.length && bytes.toString("latin1", block + 257, block + 262) === "ustar") {
    withChecksum(bytes.subarray(block, block + tarBlockBytes));
  }
}

/** A small generator of good-enough numbers (mulberry32): the same seed gives the same damage everywhere. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed * 0x9e3779b9;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}
