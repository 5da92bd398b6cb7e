import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readSparse, writeSparse } from "./sparse.ts";

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "sparse."));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const gib = 2 ** 30;

test("what a sparse file holds is written again, byte for byte, and its holes stay holes", () => {
  const first = join(folder, "first");
  const second = join(folder, "second");
  const pieces = [
    { offset: 0, bytes: Buffer.alloc(4096, 1) },
    { offset: 64 * 1024, bytes: Buffer.alloc(8192, 2) },
    { offset: gib, bytes: Buffer.alloc(4096, 3) },
  ];
  writeSparse(first, { sizeBytes: 2 * gib, pieces }, process.getuid?.() ?? 0);
  const content = readSparse(first, 2 ** 20);
  assert.equal(content.sizeBytes, 2 * gib);
  assert.deepEqual(content.pieces, pieces);
  writeSparse(second, content, process.getuid?.() ?? 0);
  assert.deepEqual(readSparse(second, 2 ** 20), content);
  assert.equal(statSync(second).size, 2 * gib);
  assert.ok(statSync(second).blocks * 512 < 2 ** 20, "no room is taken for holes");
  assert.equal(statSync(second).mode & 0o777, 0o600);
});

test("blocks of zeros are left out, and the end of a file need not be that of a block", () => {
  const path = join(folder, "zeros");
  writeFileSync(path, Buffer.concat([Buffer.alloc(8192), Buffer.from("end")]));
  const { sizeBytes, pieces } = readSparse(path, 2 ** 20);
  assert.equal(sizeBytes, 8195);
  assert.deepEqual(pieces, [{ offset: 8192, bytes: Buffer.from("end") }]);
});

test("a file that holds too much is not read, and one that is there is not written over", () => {
  const path = join(folder, "much");
  writeFileSync(path, Buffer.alloc(10_000, 7));
  assert.throws(() => readSparse(path, 4096), { reason: "exhausted" });
  assert.throws(() => writeSparse(path, { sizeBytes: 1, pieces: [] }, 0), { code: "EEXIST" });
  assert.deepEqual(readFileSync(path), Buffer.alloc(10_000, 7));
});
