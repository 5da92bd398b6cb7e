import assert from "node:assert/strict";
import { it } from "node:test";
import { isFault } from "../../../base/fault.ts";
import { moduleOrder } from "./module.ts";

const dependencies = [
  "kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko",
  "kernel/lib/libcrc32c.ko:",
  "kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko",
  "kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko",
  "kernel/drivers/virtio/virtio_ring.ko:",
  "",
].join("\n");

it("puts what is needed first, each once, whichever mark a name is written with", () => {
  assert.deepEqual(moduleOrder(["virtio_rng", "erofs", "virtio"], [], dependencies, ""), [
    "kernel/drivers/virtio/virtio_ring.ko",
    "kernel/drivers/virtio/virtio.ko",
    "kernel/drivers/char/hw_random/virtio-rng.ko.xz",
    "kernel/lib/libcrc32c.ko",
    "kernel/fs/erofs/erofs.ko",
  ]);
});

it("needs no file for what is built in, and says what a kernel lacks", () => {
  assert.deepEqual(moduleOrder(["ext4"], ["fuse"], dependencies, "kernel/fs/ext4/ext4.ko\n"), []);
  assert.throws(
    () => moduleOrder(["ext4"], [], dependencies, ""),
    (error) => isFault(error, "unsupported") && error.message.includes("ext4"),
  );
});
