import { Fault } from "../../base/fault.ts";
import type { Extent } from "../erofs/chunk-map.ts";

/** The records of a PAX extended header. Keys and values are byte strings, one `latin1` character a byte. */
export interface PaxRecords {
  /** Last value of each key. An empty value takes the record back. */
  readonly values: ReadonlyMap<string, string>;
  /** `GNU.sparse.offset` and `GNU.sparse.numbytes` of sparse format 0.0, which repeats keys, in their order. */
  readonly sparse: readonly Extent[];
}

export const noPax: PaxRecords = { values: new Map(), sparse: [] };

/** More runs than any real sparse file has; a hostile one would fill memory with them. */
export const maxExtents = 1 << 18;

/**
 * Parses records of the form `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
 *
 * @throws Fault `corrupt` when a length lies, and `hostile` for a NUL in a name.
 */
export function parsePax(body: Buffer): PaxRecords {
  const values = new Map<string, string>();
  const sparse: Extent[] = [];
  let sparseOffset: number | undefined;
  let at = 0;
  while (at < body.length) {
    const space = body.indexOf(0x20, at);
    const digits = space === -1 ? "" : body.toString("latin1", at, Math.min(space, at + 12));
    const end = at + Number(digits);
    if (!/^[0-9]+$/.test(digits) || end > body.length || end <= space + 2 || body[end - 1] !== 0x0a) {
      throw new Fault("corrupt", `a PAX record at byte ${at} lies about its length`);
    }
    const equals = body.indexOf(0x3d, space + 1);
    if (equals === -1 || equals >= end - 1 || equals === space + 1) {
      throw new Fault("corrupt", `a PAX record at byte ${at} is not KEY=VALUE`);
    }
    const key = body.toString("latin1", space + 1, equals);
    const value = body.toString("latin1", equals + 1, end - 1);
    at = end;
    if (key.includes("\0") || (!key.startsWith("SCHILY.xattr.") && value.includes("\0"))) {
      throw new Fault("hostile", `the PAX record ${JSON.stringify(key)} contains a NUL byte`);
    }
    if (key === "GNU.sparse.offset") sparseOffset = wholeNumber(value, key);
    else if (key === "GNU.sparse.numbytes") {
      if (sparseOffset === undefined) throw new Fault("corrupt", `${key} without GNU.sparse.offset before it`);
      sparse.push({ offset: sparseOffset, sizeBytes: wholeNumber(value, key) });
      sparseOffset = undefined;
    } else values.set(key, value);
  }
  return { values, sparse };
}

/** A decimal whole number of at most 2^53. Throws a `corrupt` Fault that names `what` otherwise. */
export function wholeNumber(value: string, what: string): number {
  const result = Number(value);
  if (!/^[0-9]{1,16}$/.test(value) || !Number.isSafeInteger(result)) {
    throw new Fault("corrupt", `${what} is ${JSON.stringify(value.slice(0, 40))}, which is not a whole number`);
  }
  return result;
}

/** A decimal time such as `-1.5` as whole seconds, rounded down, and the nanoseconds after them. */
export function parseTime(value: string): { readonly sec: number; readonly nsec: number } {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(value);
  if (match === null) {
    throw new Fault("corrupt", `a PAX time is ${JSON.stringify(value.slice(0, 40))}, which is not a decimal number`);
  }
  const [, sign = "", whole = "", fraction = ""] = match;
  const sec = Number(whole);
  const nsec = Number(fraction.slice(0, 9).padEnd(9, "0"));
  if (sign === "") return { sec, nsec };
  return nsec === 0 ? { sec: 0 - sec, nsec } : { sec: -1 - sec, nsec: 1e9 - nsec };
}
