import { Fault } from "../../base/fault.ts";
import type { Extent } from "../erofs/chunk-map.ts";
import { maxExtents, wholeNumber } from "./pax.ts";
import { number, tarBlockBytes } from "./tar-header.ts";

/** The four ways in which GNU tar says where the data of a sparse file belongs, as lists of extents. */

/** Entries of the old GNU format: 24 bytes each, from `offset` on, until an empty one. */
export function decodeOldExtents(block: Buffer, offset: number, count: number, extents: Extent[]): void {
  for (let index = 0; index < count; index += 1) {
    const at = offset + index * 24;
    if (block[at] === 0) return;
    extents.push({
      offset: number(block, at, 12, "sparse offset"),
      sizeBytes: number(block, at + 12, 12, "sparse length"),
    });
  }
}

/** `GNU.sparse.map` of format 0.1: offsets and lengths in turn, separated by commas. */
export function parseExtentList(list: string): Extent[] {
  if (list === "") return [];
  const numbers = list.split(",", maxExtents * 2 + 2);
  if (numbers.length % 2 !== 0) throw new Fault("corrupt", "GNU.sparse.map has an offset without a length");
  const extents: Extent[] = [];
  for (let index = 0; index < numbers.length; index += 2) {
    extents.push({
      offset: wholeNumber(numbers[index] ?? "", "an offset of GNU.sparse.map"),
      sizeBytes: wholeNumber(numbers[index + 1] ?? "", "a length of GNU.sparse.map"),
    });
  }
  return extents;
}

/**
 * Format 1.0: the map is lines of decimal numbers before the data, the first of them says how many pairs follow, and zeros
 * fill the last block. Takes one block at a time and returns the extents when they are complete.
 */
export class LeadingExtentMap {
  #rest = "";
  #count: number | undefined;
  readonly #numbers: number[] = [];

  add(block: Buffer): Extent[] | undefined {
    const lines = (this.#rest + block.toString("latin1", 0, tarBlockBytes)).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const value = wholeNumber(line, "a number of a sparse map");
      if (this.#count === undefined) {
        if (value > maxExtents) throw tooManyExtents();
        this.#count = value;
      } else this.#numbers.push(value);
      if (this.#numbers.length === this.#count * 2) return this.#extents();
    }
    if (this.#rest.length > 20) throw new Fault("corrupt", "a sparse map is not lines of numbers");
    return undefined;
  }

  #extents(): Extent[] {
    const extents: Extent[] = [];
    for (let index = 0; index < this.#numbers.length; index += 2) {
      extents.push({ offset: this.#numbers[index] ?? 0, sizeBytes: this.#numbers[index + 1] ?? 0 });
    }
    return extents;
  }
}

/**
 * `extents` without the empty ones.
 *
 * @throws Fault `corrupt` unless they ascend, lie within `sizeBytes` and hold exactly the `storedBytes` that follow.
 */
export function checkedExtents(extents: readonly Extent[], sizeBytes: number, storedBytes: number): Extent[] {
  if (extents.length > maxExtents) throw tooManyExtents();
  let end = 0;
  let held = 0;
  for (const extent of extents) {
    if (extent.offset < end || extent.offset + extent.sizeBytes > sizeBytes) {
      throw new Fault("corrupt", "its sparse map overlaps itself or reaches beyond its size");
    }
    end = extent.offset + extent.sizeBytes;
    held += extent.sizeBytes;
  }
  if (held !== storedBytes) {
    throw new Fault("corrupt", `its sparse map holds ${held} bytes where ${storedBytes} are stored`);
  }
  return extents.filter((extent) => extent.sizeBytes > 0);
}

export function tooManyExtents(): Fault {
  return new Fault("exhausted", `its sparse map has more than ${maxExtents} runs`);
}
