import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { run } from "../../../host/process.ts";
import { readSparse } from "../../../host/sparse.ts";
import { blankMark, replaceDisk } from "./blank-disk.ts";

const call = backgroundCall();
let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "blank."));
});
after(() => rmSync(folder, { recursive: true, force: true }));

async function made(name: string): Promise<string> {
  const path = join(folder, name);
  writeFileSync(path, "");
  truncateSync(path, 64 * 2 ** 20);
  await run(["mkfs.ext4", "-q", "-F", path], {}, call);
  return path;
}

test("a file system that nobody mounted is blank, and no longer once somebody did", async () => {
  const path = await made("disk");
  const mark = blankMark(path);
  assert.match(mark ?? "", /^sha256:/);
  assert.equal(blankMark(path), mark);
  const place = join(folder, "place");
  mkdirSync(place);
  await run(["mount", "-o", "loop", path, place], {}, call);
  await run(["umount", place], {}, call);
  assert.equal(blankMark(path), undefined);
});

test("two that were made apart are not told to be alike", async () => {
  assert.notEqual(blankMark(await made("one")), blankMark(await made("other")));
});

test("what is no file system is not blank", () => {
  const path = join(folder, "none");
  writeFileSync(path, Buffer.alloc(4096, 1));
  assert.equal(blankMark(path), undefined);
  writeFileSync(path, "short");
  assert.equal(blankMark(path), undefined);
});

test("a disk that takes another's place has its name and owner, and nothing else stays", async () => {
  const path = await made("mine");
  await run(["chown", "1234:1234", path], {}, call);
  const content = readSparse(await made("theirs"), 16 * 2 ** 20);
  const { ino } = statSync(path);
  // Of one who was killed while doing the same.
  writeFileSync(`${path}.next`, "half");
  replaceDisk(path, content);
  const now = statSync(path);
  assert.notEqual(now.ino, ino);
  assert.deepEqual([now.uid, now.gid, now.mode & 0o777], [1234, 1234, 0o600]);
  assert.deepEqual(readSparse(path, 16 * 2 ** 20), content);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith("mine")),
    ["mine"],
  );
});
