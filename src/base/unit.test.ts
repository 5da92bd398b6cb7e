import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { isFault } from "./fault.ts";
import { formatDuration, formatSize, parseDurationMs, parseSizeBytes } from "./unit.ts";

void test("sizes as people write them", () => {
  const sizes: readonly (readonly [string, number])[] = [
    ["0B", 0],
    ["4096B", 4096],
    ["512MiB", 512 * 2 ** 20],
    ["5GiB", 5 * 2 ** 30],
    ["5 GiB", 5 * 2 ** 30],
    ["1.5GB", 1_500_000_000],
    ["1kB", 1_000],
    ["0.5KiB", 512],
    ["2TiB", 2 ** 41],
  ];
  for (const [text, sizeBytes] of sizes) assert.equal(parseSizeBytes(text), sizeBytes, text);
});

void test("durations as people write them", () => {
  const durations: readonly (readonly [string, number])[] = [
    ["500ms", 500],
    ["5s", 5_000],
    ["2m", 120_000],
    ["1.5h", 5_400_000],
    ["30d", 2_592_000_000],
  ];
  for (const [text, durationMs] of durations) assert.equal(parseDurationMs(text), durationMs, text);
});

void test("what is no size or duration is refused, with what would be right", () => {
  const notSizes = [
    "",
    "5",
    "GiB",
    "-1GiB",
    "+1GiB",
    "1e3B",
    "5gib",
    "5 Gi B",
    "0x10B",
    "1.2.3MB",
    "9007199254740993B",
  ];
  for (const text of [...notSizes, "5s", "constructorB", "1constructor", "1__proto__", "NaNB", "InfinityB", "5GiB\n"]) {
    assert.throws(
      () => parseSizeBytes(text),
      (thrown) => isFault(thrown, "invalid") && /512MiB/.test(thrown.hint ?? ""),
      JSON.stringify(text),
    );
  }
  for (const text of ["5", "s", "5MiB", "-5s", "5 s s", "1toString"]) {
    assert.throws(
      () => parseDurationMs(text),
      (thrown) => isFault(thrown, "invalid") && /500ms/.test(thrown.hint ?? ""),
      JSON.stringify(text),
    );
  }
});

void test("sizes show three significant digits at most", () => {
  const shown: readonly (readonly [number, string])[] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [83 * 2 ** 20, "83 MiB"],
    [2 ** 50, "1024 TiB"],
  ];
  for (const [sizeBytes, text] of shown) assert.equal(formatSize(sizeBytes), text);
});

void test("durations show one unit, rounded down", () => {
  const shown: readonly (readonly [number, string])[] = [
    [-1, "0 ms"],
    [350.9, "350 ms"],
    [59_999, "59 s"],
    [60_000, "1 m"],
    [3_599_999, "59 m"],
    [3 * 3_600_000, "3 h"],
    [86_400_000 * 2.9, "2 d"],
  ];
  for (const [durationMs, text] of shown) assert.equal(formatDuration(durationMs), text);
});

void test("whatever size is shown can be read again, and is near", () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 31 - 1 }), (half) => {
      const sizeBytes = half * 2 ** 15;
      const again = parseSizeBytes(formatSize(sizeBytes));
      assert.ok(Math.abs(again - sizeBytes) <= sizeBytes * 0.06, `${sizeBytes} ${formatSize(sizeBytes)}`);
    }),
  );
});
