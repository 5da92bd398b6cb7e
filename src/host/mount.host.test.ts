import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { closeSync, openSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { errnoOf } from "./errno.ts";
import { fileExists, removeTree, writeFileAtomic } from "./file.ts";
import { findLoopDevice, withLoopDevice } from "./loop.ts";
import {
  bind,
  isMountPoint,
  listMounts,
  mountErofs,
  mountOverlay,
  mountOverlayByPage,
  mountTmpfs,
  unmount,
} from "./mount.ts";
import { run } from "./process.ts";

const call = backgroundCall();

function scenario(what: string, body: (directory: string) => Promise<void>): void {
  test(what, async () => {
    const directory = mkdtempSync(join(tmpdir(), "mount."));
    try {
      await body(directory);
    } finally {
      for (const { target } of listMounts(directory).toReversed()) await unmount(target, { detach: true });
      rmSync(directory, { recursive: true });
    }
  });
}

function folders<Name extends string>(directory: string, ...names: Name[]): Record<Name, string> {
  const made = names.map((name) => {
    mkdirSync(join(directory, name), { recursive: true });
    return [name, join(directory, name)] as const;
  });
  return Object.fromEntries(made) as Record<Name, string>;
}

for (const [way, mountIt] of [
  ["layer by layer", mountOverlay],
  ["as older kernels take it", async (options) => mountOverlayByPage(options)],
] as readonly (readonly [string, typeof mountOverlay])[]) {
  scenario(`an overlay of sixty layers, ${way}`, async (directory) => {
    const { upper, work, target } = folders(directory, "upper", "work", "target");
    const lowers = Array.from({ length: 60 }, (_, index) => {
      const lower = join(directory, `a-layer-with-a-name-so-long-that-sixty-of-them-fill-more-than-one-page-${index}`);
      mkdirSync(lower);
      writeFileSync(join(lower, `only-${index}`), "");
      writeFileSync(join(lower, "all"), String(index));
      return lower;
    });
    await mountOverlay({ lowers, upper, work, target });
    await unmount(target);
    await mountIt({ lowers, upper, work, target });
    assert.equal(readdirSync(target).length, 61);
    assert.equal(readFileSync(join(target, "all"), "utf8"), "0", "the first is the uppermost");
    writeFileSync(join(target, "all"), "written");
    assert.equal(readFileSync(join(upper, "all"), "utf8"), "written");
    await unmount(target);
    assert.ok(!isMountPoint(target));
  });
}

scenario("an overlay without writable part is read-only", async (directory) => {
  const { one, two, target } = folders(directory, "one", "two", "target");
  await mountOverlay({ lowers: [one, two], target, readOnly: true });
  assert.throws(() => writeFileSync(join(target, "x"), ""), { code: "EROFS" });
});

scenario("a refused overlay says which part the kernel refused", async (directory) => {
  const { upper, work, target } = folders(directory, "upper", "work", "target");
  const missing = join(directory, "missing");
  await assert.rejects(mountOverlay({ lowers: [missing], upper, work, target }), (error) => {
    assert.ok(isFault(error, "not-found"));
    assert.ok(error.message.includes(missing), error.message);
    return true;
  });
  assert.deepEqual(listMounts(directory), []);
});

scenario("an EROFS file, from the disk and from where it needs a loop device", async (directory) => {
  const { tree, memory, target } = folders(directory, "tree", "memory", "target");
  writeFileSync(join(tree, "file"), "content");
  await mountTmpfs(memory, { sizeBytes: 2 ** 20 });
  for (const image of [join(directory, "image"), join(memory, "image")]) {
    await run(["mkfs.erofs", "--quiet", image, tree], {}, call);
    await mountErofs(image, target);
    assert.equal(readFileSync(join(target, "file"), "utf8"), "content");
    assert.throws(() => writeFileSync(join(target, "x"), ""), { code: "EROFS" });
    await unmount(target);
    assert.equal(findLoopDevice(image), undefined, "a device goes with its last mount");
  }
});

scenario("a damaged EROFS file is refused", async (directory) => {
  const { target } = folders(directory, "target");
  const image = join(directory, "image");
  writeFileSync(image, Buffer.alloc(8192, 7));
  await assert.rejects(mountErofs(image, target), (error) => isFault(error, "failed"));
});

scenario("a loop device goes when its use fails, and is shared while it lasts", async (directory) => {
  const image = join(directory, "image");
  writeFileSync(image, Buffer.alloc(2 ** 20));
  const failing = withLoopDevice(image, { readOnly: false }, async (device) => {
    await withLoopDevice(image, { readOnly: false }, (again) => assert.equal(again, device));
    throw new Error("use failed");
  });
  await assert.rejects(failing, /use failed/);
  assert.equal(findLoopDevice(image), undefined);
});

scenario("a tmpfs has its size, owner and mode", async (directory) => {
  const { target } = folders(directory, "target");
  await mountTmpfs(target, { sizeBytes: 2 ** 20, mode: 0o1770, uid: 33, gid: 44 });
  const { mode, uid, gid } = statSync(target);
  assert.deepEqual([mode & 0o7777, uid, gid], [0o1770, 33, 44]);
  assert.throws(() => writeFileSync(join(target, "big"), Buffer.alloc(2 ** 21)), { code: "ENOSPC" });
});

scenario("a file that does not fit on a full disk is exhausted, and the old one stays", async (directory) => {
  const { target } = folders(directory, "target");
  await mountTmpfs(target, { sizeBytes: 2 ** 20 });
  await writeFileAtomic(join(target, "file"), "old");
  const writing = writeFileAtomic(join(target, "file"), Buffer.alloc(2 ** 21));
  await assert.rejects(writing, (error) => isFault(error, "exhausted"));
  assert.equal(readFileSync(join(target, "file"), "utf8"), "old");
  assert.deepEqual(readdirSync(target), ["file"]);
});

scenario("a bind mount, plain, read-only and with what is beneath", async (directory) => {
  const { source, target, "source/inner": inner } = folders(directory, "source", "target", "source/inner");
  await mountTmpfs(inner, { sizeBytes: 2 ** 20 });
  writeFileSync(join(inner, "deep"), "");
  await bind(source, target);
  writeFileSync(join(target, "file"), "");
  assert.deepEqual(readdirSync(join(target, "inner")), []);
  await unmount(target);
  await bind(source, target, { readOnly: true, recursive: true, nodev: true });
  assert.deepEqual(readdirSync(join(target, "inner")), ["deep"]);
  assert.throws(() => writeFileSync(join(target, "other"), ""), { code: "EROFS" });
  assert.throws(() => writeFileSync(join(target, "inner/other"), ""), { code: "EROFS" });
  writeFileSync(join(source, "other"), "");
});

scenario("a target that is a link is not followed", async (directory) => {
  const { source, elsewhere } = folders(directory, "source", "elsewhere");
  const link = join(directory, "link");
  symlinkSync(elsewhere, link);
  await bind(source, link).catch(() => {});
  assert.ok(!isMountPoint(elsewhere));
  await bind(source, elsewhere);
  await unmount(link);
  assert.ok(isMountPoint(elsewhere));
});

scenario("unmounting: busy is told, detached it goes, and nothing mounted is fine", async (directory) => {
  const { target } = folders(directory, "target");
  await unmount(target);
  await unmount(join(directory, "missing"));
  await unmount(target, { detach: true });
  await mountTmpfs(target, { sizeBytes: 2 ** 20 });
  const held = openSync(join(target, "file"), "w");
  await assert.rejects(unmount(target), (error) => errnoOf(error) === "EBUSY");
  await unmount(target, { detach: true });
  assert.ok(!isMountPoint(target));
  closeSync(held);
});

scenario("a tree in which something is mounted is not removed, by whatever path it is named", async (directory) => {
  const { "tree/inner": inner, outside } = folders(directory, "tree/inner", "outside");
  writeFileSync(join(outside, "precious"), "");
  await bind(outside, inner);
  symlinkSync(directory, join(directory, "alias"));
  for (const path of [join(directory, "tree"), join(directory, "alias/tree")]) {
    await assert.rejects(removeTree(path), (error) => isFault(error, "precondition"));
  }
  assert.ok(await fileExists(join(outside, "precious")));
  await unmount(inner);
  await removeTree(join(directory, "tree"));
  assert.deepEqual(readdirSync(outside), ["precious"]);
});
