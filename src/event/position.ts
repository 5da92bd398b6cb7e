import { Fault } from "../base/fault.ts";

/** Throws unless events after sequence `position` can be read when `oldest` to `last` are kept. */
export function checkPosition(position: number, oldest: number, last: number): void {
  if (position + 1 < oldest) {
    throw new Fault("exhausted", `subscribe after event ${position}: events before ${oldest} are no longer kept`, {
      hint: `subscribe after ${oldest - 1}, or from now`,
      detail: { oldest: String(oldest) },
    });
  }
  if (position > last) {
    throw new Fault("invalid", `subscribe after event ${position}: the last one so far is ${last}`, {
      hint: "the daemon's database may have been restored from a backup; subscribe from now",
      detail: { last: String(last) },
    });
  }
}

/** Whether `kind` starts with one of `prefixes`; none means every kind. */
export function kindMatches(kind: string, prefixes: readonly string[]): boolean {
  return prefixes.length === 0 || prefixes.some((prefix) => kind.startsWith(prefix));
}
