import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createBoundedFile, readBoundedFile } from "./bounded-file.ts";

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "bounded."));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const maxBytes = 64;
const text = (path: string): string | undefined => readBoundedFile(path, maxBytes)?.toString("latin1");

test("what others write is read as they wrote it", () => {
  const path = join(folder, "words");
  writeFileSync(path, "of an earlier run");
  const fd = createBoundedFile(path, maxBytes);
  assert.equal(text(path), "");
  spawnSync("sh", ["-c", "echo 7; echo 1"], { stdio: ["ignore", fd, "inherit"] });
  assert.equal(text(path), "7\n1\n");
  closeSync(fd);
});

test("nobody fills it, in large pieces or in small ones", () => {
  for (const size of [1, 7, 4096, 2 ** 20]) {
    const path = join(folder, `flood-${size}`);
    const fd = createBoundedFile(path, maxBytes);
    const flood = ["if=/dev/zero", `bs=${size}`, "count=100", "conv=fsync"];
    const { status } = spawnSync("dd", flood, { stdio: ["ignore", fd, "ignore"] });
    closeSync(fd);
    assert.notEqual(status, 0);
    assert.ok(statSync(path).blocks * 512 <= 2 ** 16, "it takes no room");
  }
});

test("of a file of any size no more than its end is read, and no link is followed", () => {
  const large = join(folder, "large");
  writeFileSync(large, "begin");
  truncateSync(large, 2 ** 32);
  assert.equal(text(large), "");
  assert.equal(text(join(folder, "none")), undefined);
  const link = join(folder, "link");
  symlinkSync("/etc/passwd", link);
  assert.throws(() => text(link), { detail: { errno: "ELOOP" } });
});
