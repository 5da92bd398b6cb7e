import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { renameSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { fileExists, readSmallFile, removeTree, writeFileAtomic } from "./file.ts";
import { run } from "./process.ts";

const call = backgroundCall();

function scenario(what: string, body: (directory: string) => Promise<void>): void {
  test(what, async () => {
    const directory = mkdtempSync(join(tmpdir(), "file."));
    try {
      await body(directory);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
}

scenario("a file is replaced as a whole, with the mode asked for, and no other file stays", async (directory) => {
  const path = join(directory, "file");
  await writeFileAtomic(path, "first");
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const umask = process.umask(0o077);
  await writeFileAtomic(path, Buffer.from("second"), { mode: 0o644 });
  process.umask(umask);
  assert.equal(readFileSync(path, "utf8"), "second");
  assert.equal(statSync(path).mode & 0o777, 0o644);
  assert.deepEqual(readdirSync(directory), ["file"]);
});

scenario("a write that fails leaves the old content and nothing else", async (directory) => {
  const path = join(directory, "target");
  mkdirSync(path);
  await assert.rejects(writeFileAtomic(path, "x"));
  assert.deepEqual(readdirSync(directory), ["target"]);
  const missing = writeFileAtomic(join(directory, "no/such/place"), "x");
  await assert.rejects(missing, (error) => isFault(error, "not-found"));
});

scenario("reading is bounded, and for regular files only", async (directory) => {
  const path = join(directory, "file");
  writeFileSync(path, "12345");
  assert.equal(String(await readSmallFile(path, 5)), "12345");
  await assert.rejects(readSmallFile(path, 4), (error) => isFault(error, "exhausted"));
  await assert.rejects(readSmallFile(join(directory, "none")), (error) => isFault(error, "not-found"));
  await assert.rejects(readSmallFile(directory), (error) => isFault(error, "failed"));
  await run(["mkfifo", join(directory, "fifo")], {}, call);
  await assert.rejects(readSmallFile(join(directory, "fifo")), (error) => isFault(error, "failed"));
});

scenario("being there and not being known are told apart", async (directory) => {
  symlinkSync("nowhere", join(directory, "dangling"));
  writeFileSync(join(directory, "file"), "");
  assert.equal(await fileExists(join(directory, "dangling")), true);
  assert.equal(await fileExists(join(directory, "none")), false);
  assert.equal(await fileExists(join(directory, "file/inner")), false);
  await assert.rejects(fileExists(join(directory, "x".repeat(300))), (error) => isFault(error, "failed"));
});

scenario("a tree is removed without following its links", async (directory) => {
  const [tree, outside] = [join(directory, "tree"), join(directory, "outside")];
  mkdirSync(join(tree, "a/b"), { recursive: true });
  mkdirSync(outside);
  writeFileSync(join(outside, "precious"), "");
  symlinkSync(outside, join(tree, "a/link"));
  symlinkSync(join(outside, "precious"), join(tree, "file-link"));
  await run(["mkfifo", join(tree, "fifo")], {}, call);
  mkdirSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 0xfe])]));
  chmodSync(join(tree, "a/b"), 0);
  await removeTree(tree);
  assert.deepEqual(readdirSync(directory), ["outside"]);
  assert.deepEqual(readdirSync(outside), ["precious"]);
  await removeTree(tree);
  symlinkSync(outside, tree);
  await removeTree(tree);
  await removeTree(join(outside, "precious"));
  assert.deepEqual(readdirSync(outside), []);
});

scenario("a tree deeper than any path may be long is removed", async (directory) => {
  const name = "n".repeat(200);
  let deepest = join(directory, "tree");
  mkdirSync(deepest);
  // Built from below: each round puts what there is into one more directory.
  for (let depth = 0; depth < 60; depth += 1) {
    const outer = join(directory, "outer");
    mkdirSync(outer);
    renameSync(deepest, join(outer, name));
    renameSync(outer, deepest);
  }
  deepest = join(directory, "tree");
  assert.ok(existsSync(deepest));
  await removeTree(deepest);
  assert.deepEqual(readdirSync(directory), []);
});
