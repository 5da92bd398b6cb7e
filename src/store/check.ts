import { Fault } from "../base/fault.ts";
import type { Revision } from "./contract.ts";

/** What every driver of the store checks alike. */

/** Words of letters, digits and `._=:@+~-`, separated by `/`: what every store can keep, and no more. */
const keyPattern = /^[A-Za-z0-9._=:@+~-]+(?:\/[A-Za-z0-9._=:@+~-]+)*$/;
const keyLengthLimit = 512;

/** Throws an `invalid` Fault unless `key` can name an entry. */
export function checkKey(key: string): void {
  if (key.length > keyLengthLimit || !keyPattern.test(key)) {
    throw new Fault("invalid", `${JSON.stringify(key.slice(0, 80))} cannot name an entry of the store`, {
      hint: `use at most ${keyLengthLimit} letters, digits and ._=:@+~- with / between words`,
    });
  }
}

/** `value` as JSON. Throws an `invalid` Fault when JSON cannot say it. */
export function encodeValue(key: string, value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (thrown) {
    throw new Fault("invalid", `store ${key}: the value is not JSON`, { cause: thrown });
  }
  if (text === undefined) throw new Fault("invalid", `store ${key}: the value is not JSON`);
  return text;
}

/** The compare of compare-and-set: throws a `conflict` Fault when `key` has another revision than `expected`. */
export function checkRevision(key: string, expected: Revision | "absent" | "any", found: Revision | "absent"): void {
  if (expected === "any" || expected === found) return;
  throw new Fault("conflict", `store ${key}: it was changed meanwhile`, {
    hint: "read it again and repeat",
    detail: { expected: String(expected), found: String(found) },
  });
}

/** Throws an `exhausted` Fault when a watcher at `position` could miss a removal, as those up to `forgotten` are gone. */
export function checkRemembered(prefix: string, position: Revision, forgotten: Revision): void {
  if (position === 0 || position >= forgotten) return;
  throw new Fault("exhausted", `watch ${prefix}: removals after revision ${position} are no longer remembered`, {
    hint: "watch again from revision 0",
    detail: { forgotten: String(forgotten) },
  });
}
