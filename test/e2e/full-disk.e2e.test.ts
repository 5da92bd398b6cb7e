import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { archiveOf, layerOf } from "./archive.ts";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { eventually } from "./eventually.ts";
import { fillDisk, freeMib } from "./full.ts";

const mib = 2 ** 20;

/** Of an image that nobody runs. */
const spareMib = 8;

const stackFile = (version: number): string => `
stack = "small"
${busyboxImage}
[volume.data]

[container.keeper]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "echo kept >> /data/lines; exec busybox sleep 1000000"]
volumes    = { data = "/data" }
stop-grace = "100ms"

[container.talker]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "while true; do busybox seq 100; busybox sleep 0.2; done"]
stop-grace = "100ms"

[container.changing]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
env        = { VERSION = "${version}" }
update     = { healthy-within = "5s" }
stop-grace = "100ms"
`;

let daemon: TestDaemon;
let file: string;

before(async () => {
  daemon = await TestDaemon.start({ sizeMib: 96, kind: "ext4" });
  file = join(daemon.folder("small", { "croft.toml": stackFile(1) }), "croft.toml");
  const { code, stdout, stderr } = await daemon.croft(["up", file, "--yes"]);
  assert.equal(code, 0, stdout + stderr);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function pids(): Promise<Readonly<Record<string, number | undefined>>> {
  const { instances } = await daemon.client.instances.list({ stack: "small" });
  return Object.fromEntries(instances.map(({ name, pid }) => [name, pid]));
}

function filler(): string {
  return join(daemon.libDir, "filler");
}

function fill(): void {
  fillDisk(daemon.libDir, filler());
}

/** Somebody who takes whatever is given back, at once. */
function greed(): Disposable {
  const taking = `while :; do dd if=/dev/zero of=${filler()} oflag=append conv=notrunc bs=4k; done`;
  const greedy = spawn("sh", ["-c", taking], { stdio: "ignore", detached: true });
  return { [Symbol.dispose]: () => void process.kill(-(greedy.pid ?? assert.fail("it did not start")), "SIGKILL") };
}

test("an image that fits is loaded", async () => {
  const archive = join(daemon.root, "spare.tar");
  const layer = await layerOf([{ name: "noise", content: randomBytes(spareMib * mib) }]);
  writeFileSync(archive, await archiveOf("spare:1", [layer]));
  const { code, stderr } = await daemon.croft(["image", "load", "-i", archive]);
  rmSync(archive);
  assert.equal(code, 0, stderr);
});

test("an image that does not fit is refused as such, and leaves nothing", async () => {
  const free = freeMib(daemon.libDir);
  const archive = join(daemon.root, "big.tar");
  writeFileSync(
    archive,
    await archiveOf("big:1", [await layerOf([{ name: "noise", content: randomBytes(150 * mib) }])]),
  );
  const { code, stderr } = await daemon.croft(["image", "load", "-i", archive]);
  rmSync(archive);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /space|full/i);
  await eventually("the space is given back", () => freeMib(daemon.libDir) > free - 2);
});

test("what runs goes on while the disk is full, also through a restart of the daemon", async () => {
  const before = await pids();
  fill();
  writeFileSync(file, stackFile(2));
  const full = await daemon.croft(["up", file, "--yes"]);
  assert.notEqual(full.code, 0, full.stdout + full.stderr);
  assert.match(full.stdout + full.stderr, /space|full/i);
  const during = await pids();
  for (const name of ["keeper", "talker"]) assert.equal(during[name], before[name], name);
  const { stdout } = await daemon.croft(["exec", "small/keeper", "busybox", "cat", "/data/lines"]);
  assert.equal(stdout, "kept\n");
  using _ = greed();
  for (const end of ["stop", "kill9"] as const) {
    await daemon[end]();
    // Ending well gives the log of the database back to the disk.
    fill();
    await daemon.start();
    const after = await pids();
    for (const name of ["keeper", "talker"]) assert.equal(after[name], before[name], `${name} after ${end}`);
  }
});

test("what nobody needs can be deleted from a full disk", async () => {
  fill();
  const removed = await daemon.croft(["image", "rm", "spare:1"]);
  assert.equal(removed.code, 0, removed.stderr);
  const collected = await daemon.croft(["image", "gc"]);
  assert.equal(collected.code, 0, collected.stderr);
  await eventually("the space is given back", () => freeMib(daemon.libDir) > spareMib - 2);
  fill();
});

test("once there is space, the next command converges and nothing was lost", async () => {
  const before = await pids();
  rmSync(filler());
  const { code, stdout, stderr } = await daemon.croft(["up", file, "--yes"]);
  assert.equal(code, 0, stdout + stderr);
  const now = await pids();
  for (const name of ["keeper", "talker"]) assert.equal(now[name], before[name], name);
  const { env } = await daemon.client.instances.get({ instance: "small/changing" });
  assert.equal(env["VERSION"], "2");
  assert.equal(readFileSync(join(daemon.libDir, "pool", "volumes", "small.data", "data", "lines"), "utf8"), "kept\n");
  const logs = await daemon.croft(["logs", "small/talker", "--tail", "1"]);
  assert.match(logs.stdout, /\d+/);
  execFileSync("sync", ["-f", daemon.libDir]);
});
