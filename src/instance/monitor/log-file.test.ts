import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import * as fc from "fast-check";
import { backgroundCall } from "../../base/call.ts";
import type { LogRange } from "../contract.ts";
import { keepLog, readLog, rotateLog } from "./log-file.ts";

const time = "2026-11-21T03:16:38.369654321+00:00";
const entry = (text: string): string => `${time} stdout F ${text}\n`;

async function read(directory: string, range: LogRange): Promise<string[]> {
  const found = [];
  const lines = readLog(
    directory,
    range,
    () => true,
    () => () => {},
    backgroundCall(),
  );
  for await (const { bytes } of lines) found.push(Buffer.from(bytes).toString());
  return found;
}

/** As conmon does when the file is full: a new one takes its place. */
function begin(directory: string, text: string): void {
  writeFileSync(join(directory, "log.tmp"), text);
  renameSync(join(directory, "log.tmp"), join(directory, "log"));
}

async function within(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "log."));
  try {
    await use(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

it("keeps the part before when conmon begins a new file, also when that was not seen", () =>
  within(async (directory) => {
    begin(directory, entry("one"));
    keepLog(directory);
    begin(directory, entry("two"));
    assert.deepEqual(await read(directory, { follow: false }), ["one", "two"]);
    keepLog(directory);
    assert.deepEqual(await read(directory, { follow: false }), ["one", "two"]);
    begin(directory, entry("three"));
    keepLog(directory);
    assert.deepEqual(await read(directory, { follow: false }), ["two", "three"]);
    assert.deepEqual(readdirSync(directory).sort(), ["log", "log.1", "log.kept"]);
  }));

it("puts a large file aside before a start, and leaves a small one", () =>
  within(async (directory) => {
    begin(directory, entry("small"));
    rotateLog(directory, 60_000);
    appendFileSync(join(directory, "log"), entry("x".repeat(15_000)));
    rotateLog(directory, 60_000);
    begin(directory, entry("next"));
    const found = await read(directory, { follow: false });
    assert.deepEqual([found.length, found[0], found.at(-1)], [3, "small", "next"]);
  }));

it("gives the last lines of any log, whatever their lengths and however they lie in its files", async () => {
  const text = fc.oneof(
    fc.string({ maxLength: 20 }),
    fc.integer({ min: 1, max: 90_000 }).map((length) => "x".repeat(length)),
  );
  const printable = text.map((value) => value.replaceAll(/[^ -~]/g, "?"));
  await fc.assert(
    fc.asyncProperty(fc.array(printable, { maxLength: 12 }), fc.nat(12), fc.nat(14), (lines, split, tail) =>
      within(async (directory) => {
        begin(directory, lines.slice(0, split).map(entry).join(""));
        keepLog(directory);
        begin(directory, lines.slice(split).map(entry).join(""));
        const expected = tail === 0 ? [] : lines.slice(-tail);
        assert.deepEqual(await read(directory, { follow: false, tail }), expected);
      }),
    ),
    { numRuns: 60 },
  );
});
