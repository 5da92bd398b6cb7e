import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, rmdirSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import { backgroundCall, systemClock } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { homeBeneath } from "../base/home.ts";
import { DiskLibrary } from "./disk/library.ts";
import { ImageStore } from "./images.ts";
import { entry, pax, tar } from "./layer/tar-fixture.ts";
import { LyingRegistry } from "./registry/lying-registry-fixture.ts";
import { imageOf, sampleLayer } from "./registry/sample-image-fixture.ts";

/** A disk of 2 GiB, of which 60 MiB are left: 20 more than stay free whatever comes. */

const call = backgroundCall();
const mebibyte = 2 ** 20;
let scratch = "";
let disk = "";

before(() => {
  scratch = mkdtempSync(join(tmpdir(), "croft-room-"));
  disk = join(scratch, "disk");
  mkdirSync(disk);
  execFileSync("truncate", ["--size=2G", join(scratch, "image")]);
  execFileSync("mkfs.ext4", ["-q", "-m", "0", "-F", join(scratch, "image")]);
  execFileSync("mount", ["-o", "loop", join(scratch, "image"), disk]);
  const fillBytes = freeBytes() - 60 * mebibyte;
  execFileSync("fallocate", ["--length", String(fillBytes), join(disk, "filler")]);
});

after(() => {
  execFileSync("umount", [disk]);
  rmdirSync(disk);
  rmSync(scratch, { recursive: true });
});

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(disk, "home-"));
});

function freeBytes(): number {
  const { bavail, bsize } = statfsSync(disk);
  return bavail * bsize;
}

/** What is refused because the disk would be too full, and leaves nothing. */
async function refused(attempt: Promise<unknown>): Promise<void> {
  await assert.rejects(attempt, (error) => {
    assert.ok(isFault(error, "exhausted"), String(error));
    assert.match(error.message, /have to stay so/);
    return true;
  });
  const left = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  assert.deepEqual(left, []);
  assert.ok(freeBytes() > 55 * mebibyte);
}

/** Small to fetch: a hundred times as much comes out. */
const layer = sampleLayer(tar(entry({ name: "file" }, Buffer.alloc(100 * mebibyte, "much of the same ".repeat(4)))));

test("a layer that unpacks to more than was to be seen does not fill the disk", async () => {
  await using store = await ImageStore.open(homeBeneath(root), systemClock);
  await using registry = await LyingRegistry.start(imageOf([layer]));
  await refused(store.pull(registry.reference, {}, call));
});

test("nor do attributes that every file has", async () => {
  const many = Array.from({ length: 200 }, (_, index) => [`SCHILY.xattr.user.${index}`, "x".repeat(1000)] as const);
  const files = Array.from({ length: 2000 }, (_, index) => entry({ name: `${index}` }));
  const heavy = sampleLayer(tar(pax(many, "g"), ...files));
  await using store = await ImageStore.open(homeBeneath(root), systemClock);
  await using registry = await LyingRegistry.start(imageOf([heavy]));
  await refused(store.pull(registry.reference, {}, call));
});

test("nor does an archive", async () => {
  await using store = await ImageStore.open(homeBeneath(root), systemClock);
  await refused(store.load(Readable.from([gzipSync(tar(entry({ name: "layer" }, layer.tar)))]), call));
});

test("nor does a disk image", async () => {
  const library = await DiskLibrary.open({ libDir: root, holdersOf: () => Promise.resolve([]) });
  const bytes = Readable.from([Buffer.alloc(48 * mebibyte, 1)]);
  const source = { kind: "bytes", filename: "disk.raw", bytes } as const;
  await refused(library.import({ source, name: "disk", allowUnverified: true, replace: false }, call));
});
