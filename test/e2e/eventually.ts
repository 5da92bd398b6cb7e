import { setTimeout as sleep } from "node:timers/promises";

/** Long enough for a busy machine; only a failure ever waits for it. */
const usualLimitMs = 60_000;

/** A guest that boots without KVM, on a machine that is busy with others. */
export const bootLimitMs = 300_000;

/** Asks until `probe` gives something other than undefined or false, and resolves with it. What it throws counts as not yet. */
export async function eventually<Value>(
  what: string,
  probe: () => Promise<Value | undefined | false> | Value | undefined | false,
  limitMs: number = usualLimitMs,
): Promise<Value> {
  const untilMs = Date.now() + limitMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      last = value;
    } catch (thrown) {
      last = thrown;
    }
    if (Date.now() > untilMs) throw new Error(`not within ${limitMs} ms: ${what}`, { cause: last });
    await sleep(50);
  }
}
