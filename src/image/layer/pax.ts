import { Fault } from "../../base/fault.ts";
import type { Extent } from "../erofs/chunk-map.ts";
import { noXattrs, type Xattrs } from "../erofs/xattr.ts";

/** The records of a PAX extended header. Keys and values are byte strings, one `latin1` character a byte. */
export interface PaxRecords {
  /** Last value of each key. An empty value takes the record back. */
  readonly values: ReadonlyMap<string, string>;
  /** Those of `SCHILY.xattr.`, by what follows it. Apart, as a global header's hold for a million entries. */
  readonly xattrs: Xattrs;
  /** `GNU.sparse.offset` and `GNU.sparse.numbytes` of sparse format 0.0, which repeats keys, in their order. */
  readonly sparse: readonly Extent[];
}

export const noPax: PaxRecords = { values: new Map(), xattrs: noXattrs, sparse: [] };

/** More than any real header has, those of a sparse file's runs apart; a hostile one would take time with them. */
const maxRecords = 1000;

const xattrKey = "SCHILY.xattr.";

/** More runs than any real sparse file has; a hostile one would fill memory with them. */
export const maxExtents = 1 << 18;

/**
 * Parses records of the form `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
 *
 * @throws Fault `corrupt` when a length lies, `hostile` for a NUL in a name, `exhausted` when they are too many.
 */
export function parsePax(body: Buffer): PaxRecords {
  const values = new Map<string, string>();
  const xattrs = new Map<string, string>();
  const sparse: Extent[] = [];
  let sparseOffset: number | undefined;
  let count = 0;
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
    const isXattr = key.startsWith(xattrKey);
    if (key.includes("\0") || (!isXattr && value.includes("\0"))) {
      throw new Fault("hostile", `the PAX record ${JSON.stringify(key.slice(0, 40))} contains a NUL byte`);
    }
    if (key === "GNU.sparse.offset") sparseOffset = wholeNumber(value, key);
    else if (key === "GNU.sparse.numbytes") {
      if (sparseOffset === undefined) throw new Fault("corrupt", `${key} without GNU.sparse.offset before it`);
      sparse.push({ offset: sparseOffset, sizeBytes: wholeNumber(value, key) });
      sparseOffset = undefined;
    } else {
      count += 1;
      if (count > maxRecords) throw new Fault("exhausted", `a PAX header has more than ${maxRecords} records`);
      if (isXattr) xattrs.set(key.slice(xattrKey.length), value);
      else values.set(key, value);
    }
  }
  return { values, xattrs, sparse };
}

/** A decimal whole number of at most 2^53. Throws a `corrupt` Fault that names `what` otherwise. */
export function wholeNumber(value: string, what: string): number {
  const result = Number(value);
  if (!/^[0-9]{1,16}$/.test(value) || !Number.isSafeInteger(result)) {
    throw new Fault("corrupt", `${what} is ${JSON.stringify(value.slice(0, 40))}, which is not a whole number`);
  }
  return result;
}

/** A decimal time such as `-1.5` as whole seconds, rounded down, and the nanoseconds after them. Reads 30 digits of them at most. */
export function parseTime(value: string): { readonly sec: number; readonly nsec: number } {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]{0,30}))?$/.exec(value);
  if (match === null) {
    throw new Fault("corrupt", `a PAX time is ${JSON.stringify(value.slice(0, 40))}, which is not a decimal number`);
  }
  const [, sign = "", whole = "", fraction = ""] = match;
  const sec = Number(whole);
  const nsec = Number(fraction.slice(0, 9).padEnd(9, "0"));
  if (sign === "") return { sec, nsec };
  return nsec === 0 ? { sec: 0 - sec, nsec } : { sec: -1 - sec, nsec: 1e9 - nsec };
}
