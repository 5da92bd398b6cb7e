import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { archiveOf, digestOf, layerOf, tarOf, type Entry } from "./archive.ts";
import { TestDaemon, type Said } from "./daemon.ts";

let daemon: TestDaemon;
/** A directory of the host that no image may reach. */
let canary: string;
let untouched: string;
let last = 0;

before(async () => {
  daemon = await TestDaemon.start();
  canary = join(daemon.root, "canary");
  mkdirSync(canary);
  writeFileSync(join(canary, "keep"), "as it was");
  untouched = look();
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

afterEach(() => {
  assert.equal(look(), untouched, "the host was touched");
  const mounts = readFileSync("/proc/self/mountinfo", "utf8");
  assert.ok(!mounts.includes(canary), "something was mounted there");
});

function look(): string {
  const names = readdirSync(canary).map((name) => {
    const { mode, uid, size, mtimeMs } = statSync(join(canary, name));
    return [name, mode, uid, size, mtimeMs, readFileSync(join(canary, name), "utf8")].join(" ");
  });
  const { mode, uid, mtimeMs } = statSync(canary);
  return [mode, uid, mtimeMs, ...names].join("\n");
}

/** The canary by an absolute path and by one that climbs. */
const ways: Readonly<Record<string, () => string>> = {
  absolute: () => canary,
  climbing: () => `${"../".repeat(40)}${relative("/", canary)}`,
};

async function load(
  entries: readonly Entry[],
  config: { readonly user?: string; readonly workdir?: string } = {},
): Promise<string> {
  last += 1;
  const name = `hostile:${last}`;
  const { code, stderr } = await loadArchive(await archiveOf(name, [await layerOf(entries)], config));
  assert.equal(code, 0, stderr);
  return name;
}

async function loadArchive(archive: Buffer): Promise<Said> {
  const path = join(daemon.root, "archive.tar");
  writeFileSync(path, archive);
  return await daemon.croft(["image", "load", "-i", path]);
}

/** Runs it once; whether it starts or is refused is the case's to say. */
async function run(image: string, flags: readonly string[], ...command: readonly string[]): Promise<Said> {
  return await daemon.croft(["run", "--rm", ...flags, image, ...command]);
}

const scribble = ["/bin/busybox", "sh", "-c", "busybox touch $0/x $0/keep /etc/x; echo ran"] as const;

for (const [way, target] of Object.entries(ways)) {
  describe(`symlinks out of the image, ${way}`, () => {
    for (const place of ["dev", "proc", "sys", "etc", "tmp", "run"]) {
      test(`/${place}`, async () => {
        const image = await load([{ name: place, type: "symlink", linkname: target() }]);
        const { stdout, stderr } = await run(image, [], ...scribble, `/${place}`);
        assert.ok(stdout.includes("ran") || stderr.includes("error"), stdout + stderr);
      });
    }

    for (const file of ["etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/hostname"]) {
      test(`/${file}`, async () => {
        const image = await load([
          { name: "etc/", type: "directory", mode: 0o755 },
          { name: file, type: "symlink", linkname: join(target(), "keep") },
        ]);
        const { stdout, stderr } = await run(image, ["--user", "1:1"], "/bin/busybox", "echo", "ran");
        assert.ok(stdout.includes("ran") || stderr.includes("error"), stdout + stderr);
      });
    }

    test("the working directory", async () => {
      const image = await load([{ name: "work", type: "symlink", linkname: target() }], { workdir: "/work/deeper" });
      const { stdout } = await run(image, [], "/bin/busybox", "sh", "-c", "busybox touch x; busybox cat ../keep");
      assert.doesNotMatch(stdout, /as it was/);
    });

    test("where volumes, memory and files are mounted", async () => {
      const image = await load([{ name: "way", type: "symlink", linkname: target() }]);
      for (const flags of [
        ["--volume", "data:/way/volume"],
        ["--tmpfs", "/way/memory"],
        ["--tmpfs", "/way"],
      ]) {
        const { stdout, stderr } = await run(image, flags, "/bin/busybox", "echo", "ran");
        assert.ok(stdout.includes("ran") || stderr.includes("error"), stdout + stderr);
      }
      const folder = daemon.folder(`inject-${way}`, {
        note: "a file",
        "croft.toml": `
stack = "inject"
[container.app]
image = "${image}"
files = { "/way/note" = "./note" }
stop-grace = "100ms"
update = { healthy-within = "3s" }
`,
      });
      await daemon.croft(["up", folder, "--yes"]);
      const down = await daemon.croft(["down", "inject", "--volumes", "--yes"]);
      assert.equal(down.code, 0, down.stderr);
    });
  });
}

test("a fifo, a giant file and a folder where users are looked up do not hold anybody up", async () => {
  const places: readonly Entry[] = [
    { name: "etc/passwd", type: "fifo" },
    { name: "etc/passwd", content: Buffer.alloc(64 * 2 ** 20, "x") },
    { name: "etc/passwd", type: "directory" },
  ];
  for (const place of places) {
    const image = await load([{ name: "etc/", type: "directory", mode: 0o755 }, place]);
    const named = await run(image, ["--user", "somebody"], "/bin/busybox", "echo", "ran");
    assert.notEqual(named.code, 0, "there is no such user");
    const number = await run(image, ["--user", "1:1"], "/bin/busybox", "echo", "ran");
    assert.ok(number.stdout === "ran\n" || number.stderr.includes("/etc/passwd"), number.stdout + number.stderr);
  }
});

test("a device node of the host's disk cannot be opened, nor one be made", async () => {
  const device = readFileSync("/proc/partitions", "utf8").trim().split("\n").at(-1)?.trim().split(/\s+/) ?? [];
  const [major, minor] = device.map(Number);
  const image = await load([
    { name: "disk", type: "block-device", devmajor: major ?? 8, devminor: minor ?? 0, mode: 0o666 },
    { name: "mem", type: "character-device", devmajor: 1, devminor: 1, mode: 0o666 },
  ]);
  for (const command of ["cat /disk", "dd if=/dev/zero of=/disk count=1", "cat /mem"]) {
    const { code } = await run(image, [], "/bin/busybox", "timeout", "5", "/bin/busybox", ...command.split(" "));
    assert.ok(code !== 0 && code !== 143, `${command} ended with ${code}`);
  }
  const made = await run(
    image,
    [],
    "/bin/busybox",
    "sh",
    "-c",
    `busybox mknod /d b ${major} ${minor} && busybox head -c1 /d`,
  );
  assert.notEqual(made.code, 0);
});

test("a setuid program gives nobody more than they had", async () => {
  const image = await load([
    { name: "suid/", type: "directory", mode: 0o755 },
    { name: "suid/busybox", mode: 0o4755, content: readFileSync("/bin/busybox") },
  ]);
  const who = ["--user", "1000:1000"];
  const su = await run(image, who, "/suid/busybox", "su", "-c", "true");
  assert.match(su.stderr, /must be suid/, "it is a program that would be root's");
  const status = await run(image, who, "/suid/busybox", "grep", "NoNewPrivs", "/proc/self/status");
  assert.match(status.stdout, /NoNewPrivs:\s+1/, status.stderr);
});

test("odd names are kept as they are", async () => {
  const names = ["new\nline", "-rf", "snow☃man", " space ", "a".repeat(255), "quote'\"\\"];
  const image = await load([
    { name: "odd/", type: "directory", mode: 0o755 },
    ...names.map((name) => ({ name: `odd/${name}`, content: name })),
  ]);
  const { stdout, stderr } = await run(
    image,
    [],
    "/bin/busybox",
    "sh",
    "-c",
    'cd /odd; for f in *; do busybox cat "./$f"; echo; done',
  );
  for (const name of names) assert.ok(stdout.includes(`${name}\n`), `${name}: ${stdout}${stderr}`);
});

/** A test that loading the archive fails and leaves nothing behind. */
function refused(name: string, archive: () => Promise<Buffer>): void {
  test(name, async () => {
    const before = stored();
    const { code, stderr } = await loadArchive(await archive());
    assert.notEqual(code, 0, "it was taken");
    assert.match(stderr, /error/);
    const { images } = await daemon.client.images.list();
    assert.ok(!images.some(({ references }) => references.some((reference) => reference.includes("liar"))));
    assert.equal(stored(), before, "something stays");
  });
}

describe("archives that lie are refused, and nothing of them stays", () => {
  const noise = Buffer.from(Array.from({ length: 20_000 }, (_, index) => (index * 7919) % 251));

  refused("a layer that is not what its digest says", async () =>
    archiveOf("liar:1", [await layerOf([{ name: "noise", content: noise }])], {
      diffIds: [digestOf(Buffer.from("other"))],
    }),
  );
  refused("a truncated layer", async () => {
    const layer = await layerOf([{ name: "noise-2", content: noise }]);
    return await archiveOf("liar:2", [layer.subarray(0, layer.length - 15_000)]);
  });
  refused("a truncated gzip", async () => {
    const layer = await layerOf([{ name: "noise-3", content: noise }]);
    const packed = gzipSync(layer);
    return await archiveOf("liar:3", [packed.subarray(0, packed.length - 5_000)], { diffIds: [digestOf(layer)] });
  });
  refused("a truncated archive", async () => (await archiveOf("liar:4", [await layerOf([])])).subarray(0, 200_000));
  refused("a hard link to nothing", async () =>
    archiveOf("liar:5", [
      await layerOf([
        { name: "noise-5", content: noise },
        { name: "link", type: "link", linkname: "nothing/there" },
      ]),
    ]),
  );

  test("names that climb stay beneath the root", async () => {
    const climb = `${"../".repeat(40)}${relative("/", canary)}/climbed`;
    const layer = await layerOf([
      { name: climb, content: "x" },
      { name: join(canary, "absolute"), content: "x" },
      { name: "out", type: "symlink", linkname: canary },
      { name: "out/through", content: "x" },
      { name: "hard", type: "link", linkname: `${"../".repeat(40)}${relative("/", canary)}/keep` },
    ]);
    const { code, stderr } = await loadArchive(await archiveOf("climber:1", [layer]));
    assert.ok(code === 0 || stderr.includes("error"), stderr);
  });

  test("a member named as the archive's own file leads nowhere", async () => {
    const archive = await tarOf([{ name: "manifest.json", type: "symlink", linkname: join(canary, "keep") }]);
    const { code } = await loadArchive(archive);
    assert.notEqual(code, 0);
  });
});

/** Files of the store that are larger than a record. */
function stored(): string {
  const { stdout } = spawnSync(
    "find",
    [
      join(daemon.root, "lib"),
      "-type",
      "f",
      "-size",
      "+8k",
      "-not",
      "-name",
      "*.db*",
      "-not",
      "-name",
      "*sqlite*",
      "-printf",
      "%P %s\n",
    ],
    { encoding: "utf8" },
  );
  return stdout.split("\n").sort().join("\n");
}
