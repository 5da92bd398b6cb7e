import { setImmediate } from "node:timers/promises";
import { type Call, throwIfCancelled } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";

/**
 * Unpacks LZ4 in its legacy frame, in which distributions pack kernels and which nothing in Node reads: a magic number,
 * then blocks, each after its packed length.
 */
const lz4LegacyMagic = 0x184c2102;

/** What one block holds when it is unpacked, at most. */
const blockBytes = 8 * 2 ** 20;

/**
 * `corrupt` when it is not that, or more than `maxBytes` come out. Bytes after the last block are left alone. Others have
 * their turn after each block, which takes some 50 ms.
 */
export async function unpackLz4(packed: Uint8Array, maxBytes: number, call: Call): Promise<Buffer> {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  if (packed.length < 8 || view.getUint32(0, true) !== lz4LegacyMagic) throw corrupt("its magic number is missing");
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for (let at = 4; at + 4 <= packed.length;) {
    const length = view.getUint32(at, true);
    at += 4;
    if (length === lz4LegacyMagic) continue;
    // A kernel image appends the unpacked size, which no block of that length follows.
    if (length === 0 || at + length > packed.length) break;
    const block = unpackBlock(packed.subarray(at, at + length));
    parts.push(block);
    sizeBytes += block.length;
    if (sizeBytes > maxBytes) throw corrupt(`more than ${maxBytes} bytes come out of it`);
    at += length;
    await setImmediate();
    throwIfCancelled(call);
  }
  return Buffer.concat(parts);
}

/**
 * No function in it that shares its variables: with code from the compile cache, the V8 of Node 26.10 unpacked by such a
 * loop, the first time in a process, now and then something else than was packed.
 */
function unpackBlock(packed: Uint8Array): Uint8Array {
  const out = Buffer.allocUnsafe(blockBytes);
  let from = 0;
  let to = 0;
  while (from < packed.length) {
    const token = packed[from] ?? fail();
    from += 1;
    // A length of 15 goes on in bytes that are added up until one is not 255.
    let literals = token >> 4;
    for (let more = literals === 15 ? 255 : 0; more === 255;) {
      more = packed[from] ?? fail();
      from += 1;
      literals += more;
    }
    if (from + literals > packed.length || to + literals > blockBytes) fail();
    out.set(packed.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    // The last sequence of a block is literals alone.
    if (from === packed.length) break;
    const distance = (packed[from] ?? fail()) | ((packed[from + 1] ?? fail()) << 8);
    from += 2;
    let length = token & 15;
    for (let more = length === 15 ? 255 : 0; more === 255;) {
      more = packed[from] ?? fail();
      from += 1;
      length += more;
    }
    length += 4;
    if (distance === 0 || distance > to || to + length > blockBytes) fail();
    copyWithin(out, to - distance, to, length);
    to += length;
  }
  return out.subarray(0, to);
}

/** A match may overlap what it makes: then it repeats what lies between. */
function copyWithin(out: Buffer, from: number, to: number, length: number): void {
  const distance = to - from;
  if (distance >= length) {
    out.copyWithin(to, from, from + length);
    return;
  }
  for (let index = 0; index < length; index += 1) out[to + index] = out[from + index] ?? 0;
}

function fail(): never {
  throw corrupt("a block of it is damaged");
}

function corrupt(why: string): Fault {
  return new Fault("corrupt", `unpack LZ4: ${why}`);
}
