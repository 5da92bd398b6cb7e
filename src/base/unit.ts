import { Fault } from "./fault.ts";

/** Sizes and durations as people write them. Values are bytes and milliseconds; names in code end in `Bytes` and `Ms`. */

const sizeFactors: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};
const durationFactors: Readonly<Record<string, number>> = { ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };

/** `512MiB`, `1.5GB`, `4096B` as whole bytes. Throws an `invalid` Fault that says what would be right. */
export function parseSizeBytes(text: string): number {
  return Math.round(scaled(text, sizeFactors, "size", "512MiB, 5GiB or 1.5GB"));
}

/** `500ms`, `5s`, `2m`, `1.5h` as milliseconds. Throws an `invalid` Fault that says what would be right. */
export function parseDurationMs(text: string): number {
  return Math.round(scaled(text, durationFactors, "duration", "500ms, 5s or 2m"));
}

function scaled(text: string, factors: Readonly<Record<string, number>>, what: string, examples: string): number {
  const match = /^([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,3})$/.exec(text);
  const factor = factors[match?.[2] ?? ""];
  const value = factor === undefined ? Number.NaN : Number(match?.[1]) * factor;
  if (!Number.isFinite(value) || value > Number.MAX_SAFE_INTEGER) {
    throw new Fault("invalid", `"${text}" is not a ${what}`, {
      hint: `write a number and a unit, such as ${examples}`,
    });
  }
  return value;
}

/** `1.5 GiB`, `83 MiB`, `512 B`: at most three significant digits. */
export function formatSize(sizeBytes: number): string {
  const steps = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = sizeBytes;
  let step = 0;
  while (value >= 1024 && step < steps.length - 1) {
    value /= 1024;
    step += 1;
  }
  const digits = value < 10 && step > 0 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0);
  return `${digits} ${steps[step]}`;
}

/** `350 ms`, `12 s`, `5 m`, `3 h`, `2 d`: one unit, rounded down, as `ps` shows an age. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 1000) return `${Math.max(0, Math.floor(durationMs))} ms`;
  const units: readonly (readonly [string, number])[] = [
    ["d", 86400e3],
    ["h", 3600e3],
    ["m", 60e3],
  ];
  for (const [unit, factor] of units) {
    if (durationMs >= factor) return `${Math.floor(durationMs / factor)} ${unit}`;
  }
  return `${Math.floor(durationMs / 1000)} s`;
}
