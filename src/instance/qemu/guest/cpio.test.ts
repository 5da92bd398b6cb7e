import assert from "node:assert/strict";
import { it } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../../../base/fault.ts";
import { type CpioEntry, writeCpio } from "./cpio.ts";

/** Reads as the kernel does: field by field, each part aligned to four bytes. */
function readCpio(archive: Buffer): CpioEntry[] {
  const entries: CpioEntry[] = [];
  for (let at = 0; ;) {
    assert.equal(archive.toString("latin1", at, at + 6), "070701");
    const field = (index: number): number =>
      Number.parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
    const mode = field(1);
    const sizeBytes = field(6);
    const device = { major: field(9), minor: field(10) };
    const nameEnd = at + 110 + field(11);
    const path = archive.toString("utf8", at + 110, nameEnd - 1);
    assert.equal(archive[nameEnd - 1], 0);
    const start = Math.ceil(nameEnd / 4) * 4;
    const content = Uint8Array.from(archive.subarray(start, start + sizeBytes));
    at = Math.ceil((start + sizeBytes) / 4) * 4;
    if (path === "TRAILER!!!") {
      assert.equal(at, archive.length);
      return entries;
    }
    const permissions = mode & 0o7777;
    const type = mode & 0o170000;
    if (type === 0o040000) entries.push({ kind: "directory", path, mode: permissions });
    else if (type === 0o120000) entries.push({ kind: "link", path, target: Buffer.from(content).toString() });
    else if (type === 0o020000) entries.push({ kind: "device", path, mode: permissions, ...device });
    else entries.push({ kind: "file", path, mode: permissions, content });
  }
}

const path = fc
  .string({ unit: "binary", minLength: 1, maxLength: 30 })
  .filter((text) => !text.startsWith("/") && !text.includes("\0") && text !== "TRAILER!!!");
const mode = fc.integer({ min: 0, max: 0o7777 });
const number = fc.integer({ min: 0, max: 0xffff_ffff });
const entry: fc.Arbitrary<CpioEntry> = fc.oneof(
  fc.record({ kind: fc.constant("directory" as const), path, mode }, { noNullPrototype: true }),
  fc.record(
    { kind: fc.constant("file" as const), path, mode, content: fc.uint8Array({ maxLength: 40 }) },
    { noNullPrototype: true },
  ),
  fc.record({ kind: fc.constant("link" as const), path, target: path }, { noNullPrototype: true }),
  fc.record(
    { kind: fc.constant("device" as const), path, mode, major: number, minor: number },
    { noNullPrototype: true },
  ),
);

it("writes what the kernel reads back, whatever the names and contents", () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 12 }), (entries) => {
      assert.deepEqual(readCpio(writeCpio(entries)), entries);
    }),
  );
});

it("refuses paths that are none of the archive", () => {
  for (const bad of ["", "/etc", "a\0b"]) {
    assert.throws(
      () => writeCpio([{ kind: "directory", path: bad, mode: 0o755 }]),
      (error) => isFault(error, "bug"),
    );
  }
});
