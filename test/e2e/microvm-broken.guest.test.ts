import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { findKernel } from "../../src/instance/qemu/guest/kernel.ts";
import { busyboxImage, type Said, TestDaemon } from "./daemon.ts";
import { eventually } from "./eventually.ts";
import { fillDisk } from "./full.ts";
import { machineTraceOf, traceOf } from "./host-trace.ts";

/** What cannot become a microVM: each is said, and none leaves anything. */
let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start({ sizeMib: 256, kind: "ext4" });
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

afterEach(async () => {
  await daemon.croft(["down", "odd", "--yes"]);
  await eventually("nothing is left", () => {
    const { monitors, namespaces, links, cgroups, roots } = traceOf(daemon.root);
    const rest = { monitors, namespaces, links, cgroups, roots, ...machineTraceOf(daemon.root) };
    const none = { monitors: 0, namespaces: 0, links: 0, cgroups: 0, roots: 0 };
    assert.deepEqual(rest, { ...none, machines: 0, servers: 0, taps: 0, sockets: 0 });
    return true;
  });
});

/** `croft up` of one microVM with that kernel. */
async function upWith(kernel: string | undefined, healthyWithin = "20s"): Promise<Said> {
  const file = `
stack = "odd"
${busyboxImage}
[microvm.box]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
${kernel === undefined ? "" : `kernel     = "${kernel}"`}
update     = { healthy-within = "${healthyWithin}" }
stop-grace = "100ms"
`;
  return await daemon.croft(["up", daemon.folder("odd", { "croft.toml": file }), "--yes"]);
}

/** The distribution's kernel with nothing in it but the same two bytes over and over, in the place of all its code. */
function hollowKernel(name: string, code: readonly [number, number]): string {
  const image = readFileSync(findKernel());
  const setupSectors = image[0x1f1] ?? assert.fail("it is too short");
  const hollow = Buffer.alloc(2 ** 20, Buffer.from(code));
  image.copy(hollow, 0, 0, (setupSectors + 1) * 512);
  const path = join(daemon.root, name);
  writeFileSync(path, hollow);
  return path;
}

test("a kernel that is not there", async () => {
  const { code, stdout, stderr } = await upWith("/boot/vmlinuz-nowhere");
  assert.notEqual(code, 0, stdout);
  assert.match(stdout + stderr, /no kernel at \/boot\/vmlinuz-nowhere/);
});

test("a file that is no kernel", async () => {
  const path = join(daemon.root, "letter");
  writeFileSync(path, "not a kernel\n".repeat(1000));
  const { code, stdout, stderr } = await upWith(path);
  assert.notEqual(code, 0, stdout);
  assert.match(stdout + stderr, /letter is not a kernel/);
});

test("a kernel that ends at once", async () => {
  // It reads from where nothing is, until the processor gives up.
  const { code, stdout, stderr } = await upWith(hollowKernel("ending", [0x0f, 0x0b]), "60s");
  assert.notEqual(code, 0, stdout);
  assert.match(stdout + stderr, /its guest ended before its program ran/);
});

test("a kernel that never gets anywhere: the order ends in its time, and so does the machine", async () => {
  const { code, stdout, stderr } = await upWith(hollowKernel("endless", [0xeb, 0xfe]), "3s");
  assert.notEqual(code, 0, stdout);
  // Without KVM it has ten times as long.
  assert.match(stdout + stderr, /box.* was not healthy within 30? s/);
  // Nobody has to wait until it has had its time to boot.
  const down = await daemon.croft(["down", "odd", "--yes"]);
  assert.equal(down.code, 0, down.stderr);
});

test("a full disk; and once there is space, the same order", async () => {
  const filler = join(daemon.libDir, "filler");
  fillDisk(daemon.libDir, filler);
  const full = await upWith(undefined);
  assert.notEqual(full.code, 0, full.stdout);
  assert.match(full.stdout + full.stderr, /space|full/i);
  rmSync(filler);
  const { code, stdout, stderr } = await upWith(undefined, "5m");
  assert.equal(code, 0, stdout + stderr);
});
