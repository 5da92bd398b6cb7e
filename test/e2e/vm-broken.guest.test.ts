import assert from "node:assert/strict";
import { chmodSync, existsSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { type Said, TestDaemon } from "./daemon.ts";
import { eventually } from "./eventually.ts";
import { fillDisk } from "./full.ts";
import { traceOf } from "./host-trace.ts";

/** What cannot become a machine, or does not come up as one: each is said within its time, and none leaves anything. */
let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start({ sizeMib: 192, kind: "ext4" });
  // A boot sector that stands still: a machine that runs, and never gets anywhere.
  const disk = Buffer.alloc(2 ** 20, "s");
  Buffer.from([0xfa, 0xf4, 0xeb, 0xfd]).copy(disk);
  disk.writeUInt16LE(0xaa55, 510);
  writeFileSync(join(daemon.root, "still.img"), disk);
  await daemon.croft(["image", "import", join(daemon.root, "still.img"), "--name", "still"]);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

afterEach(async () => {
  await daemon.croft(["down", "odd", "--volumes", "--yes"]);
  await eventually("nothing is left", () => {
    const { monitors, namespaces, links, cgroups, roots } = traceOf(daemon.root);
    const kept = ["disks", "machine-state"].flatMap((name) => namesIn(join(daemon.libDir, name)));
    const rest = {
      monitors,
      namespaces,
      links,
      cgroups,
      roots,
      disks: namesIn(join(daemon.libDir, "pool/disks")),
      kept,
    };
    assert.deepEqual(rest, { monitors: 0, namespaces: 0, links: 0, cgroups: 0, roots: 0, disks: [], kept: [] });
    return true;
  });
});

function namesIn(directory: string): readonly string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

/** `croft up` of one machine whose section has these lines besides. */
async function upWith(...lines: readonly string[]): Promise<Said> {
  const memory = lines.some((line) => line.startsWith("memory")) ? [] : ['memory = "64MiB"'];
  const file = ['stack = "odd"', "[vm.box]", "cloud-init = false", 'stop-grace = "100ms"', ...memory, ...lines];
  return await daemon.croft(["up", daemon.folder("odd", { "croft.toml": file.join("\n") }), "--yes"]);
}

async function refused(message: RegExp, ...lines: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await upWith(...lines);
  assert.notEqual(code, 0, stdout);
  assert.match(stdout + stderr, message);
}

test("a disk image that is not here, and one whose file was cut off since", async () => {
  await refused(/there is no disk image nowhere.*[^]*croft image import/, 'disk = "nowhere"');
  await daemon.croft(["image", "import", join(daemon.root, "still.img"), "--name", "cut"]);
  const [content = ""] = namesIn(join(daemon.libDir, "image/disk/content"));
  const path = join(daemon.libDir, "image/disk/content", content);
  chmodSync(path, 0o644);
  truncateSync(path, 4096);
  await refused(/is not what was imported any more/, 'disk = "still"');
  truncateSync(path, 0);
  const again = await daemon.croft(["image", "import", join(daemon.root, "still.img"), "--name", "still"]);
  assert.equal(again.code, 0, again.stderr);
});

test("what this host does not have: devices, huge pages, its own processor", async () => {
  await refused(/this machine has no such device/, 'disk = "still"', 'pci = ["0000:ff:1f.7"]');
  await refused(/hand over USB device dead:beef/, 'disk = "still"', 'usb = ["dead:beef"]');
  // More than any host that runs this has.
  await refused(
    /needs \d+ huge pages of 2 MiB, and \d+ are free/,
    'disk = "still"',
    "hugepages = true",
    'memory = "1TiB"',
  );
  await refused(/no-such-model/, 'disk = "still"', 'cpu-model = "no-such-model"');
});

test("a guest that never boots: the order ends in its time, and so does the machine", async () => {
  const late = ['health = { tcp = 22, interval = "200ms" }', 'update = { healthy-within = "3s" }'];
  await refused(/box.* was not healthy within 3 s/, 'disk = "still"', ...late);
  const agentless = ['health = { exec = ["true"], interval = "200ms" }', 'update = { healthy-within = "6s" }'];
  await refused(/no agent answers in the guest/, 'disk = "still"', ...agentless);
});

test("a full disk; and once there is space, the same order", async () => {
  const filler = join(daemon.libDir, "filler");
  fillDisk(daemon.libDir, filler);
  await refused(/space|full/i, 'disk = { image = "still", size = "1GiB" }');
  rmSync(filler);
  const { code, stdout, stderr } = await upWith('disk = { image = "still", size = "1GiB" }');
  assert.equal(code, 0, stdout + stderr);
});
