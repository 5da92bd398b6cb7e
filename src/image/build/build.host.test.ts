import assert from "node:assert/strict";
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { type Call, backgroundCall, systemClock } from "../../base/call.ts";
import { type Reason, isFault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import { sha256 } from "../../base/id.ts";
import { listMounts, mountErofs, mountOverlay, unmount } from "../../host/mount.ts";
import { run } from "../../host/process.ts";
import type { Image, Recipe } from "../contract.ts";
import { ImageStore } from "../images.ts";
import { entry, tar } from "../layer/tar-fixture.ts";
import { imageOf, sampleLayer } from "../registry/sample-image-fixture.ts";
import { writeFileTar } from "./file-layer.ts";
import { unpackPackages } from "./package.ts";

/** Builds on the real file system, seen as the kernel mounts them. */

const call = backgroundCall();
let rootDir = "";
let rounds = 0;
before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "croft-build-"));
});
after(async () => await rm(rootDir, { recursive: true, force: true }));

function room(): string {
  rounds += 1;
  const path = join(rootDir, String(rounds));
  mkdirSync(path);
  return path;
}

/** What the client sends along with a recipe. */
function files(destination: string, ...parts: readonly Buffer[]): Recipe["files"][number] {
  const bytes = tar(...parts);
  const tarPath = join(room(), "files.tar");
  writeFileSync(tarPath, bytes);
  return { destination, digest: sha256(bytes), tarPath };
}

function recipe(change: Partial<Recipe>): Recipe {
  return {
    reference: "localhost/test/site",
    from: "scratch",
    packages: [],
    files: [],
    env: {},
    fresh: false,
    ...change,
  };
}

/** Loads a base image of one layer. */
async function loadBase(store: ImageStore, name: string, ...parts: readonly Buffer[]): Promise<Image> {
  const image = imageOf([sampleLayer(tar(...parts))]);
  const [layer] = image.layers;
  assert.ok(layer !== undefined);
  const list = [{ Config: "config.json", RepoTags: [name], Layers: ["layer.tar"] }];
  const archive = tar(
    entry({ name: "config.json" }, image.config),
    entry({ name: "layer.tar" }, layer.tar),
    entry({ name: "manifest.json" }, JSON.stringify(list)),
  );
  const [loaded] = await store.load(Readable.from([archive]), call);
  assert.ok(loaded !== undefined);
  return loaded;
}

/** Looks at an image as an instance would see it. */
async function seen(image: Image, look: (root: string) => void | Promise<void>): Promise<void> {
  const base = room();
  const targets: string[] = [];
  try {
    for (const [at, layer] of image.layers.entries()) {
      const target = join(base, String(at));
      mkdirSync(target);
      await mountErofs(layer.path, target);
      targets.push(target);
    }
    const root = join(base, "root");
    mkdirSync(root);
    if (targets.length > 1) {
      await mountOverlay({ lowers: targets.toReversed(), target: root, readOnly: true });
      targets.push(root);
    }
    await look(targets.at(-1) ?? root);
  } finally {
    for (const target of targets.toReversed()) await unmount(target);
  }
}

async function freshStore(): Promise<{ store: ImageStore; imageDir: string }> {
  const home = homeBeneath(room());
  return { store: await ImageStore.open(home, systemClock), imageDir: join(home.libDir, "image") };
}

const page = entry({ name: ".", mode: 0o4644, uid: 1000, mtimeSec: 1_700_000_000 }, "<h1>hello</h1>");

test("files are put into an empty image, owned by root, with their times, and the same input costs nothing", async () => {
  const { store, imageDir } = await freshStore();
  await using _ = store;
  const tree = [
    entry({ name: "./", type: "5", mode: 0o750 }),
    entry({ name: "./a/", type: "5", mode: 0o700 }),
    entry({ name: "./a/tool", mode: 0o755, uid: 1000, gid: 1000 }, "tool"),
    entry({ name: "./link", type: "2", linkName: "a/tool" }),
    entry({ name: "./hard", type: "1", linkName: "./a/tool" }),
  ];
  const made = recipe({
    files: [files("/srv/www", ...tree), files("/srv/www/index.html", page)],
    command: ["/srv/www/a/tool"],
    env: { A: "1" },
    workdir: "/srv",
    user: "1000",
  });
  const image = await store.build(made, call);
  assert.deepEqual(image.references, ["localhost/test/site:latest"]);
  assert.deepEqual(image.config.command, ["/srv/www/a/tool"]);
  assert.equal(image.config.env["A"], "1");
  assert.match(image.config.env["PATH"] ?? "", /\/usr\/bin/);
  await seen(image, (root) => {
    assert.equal(lstatSync(root).mode & 0o7777, 0o755);
    assert.equal(lstatSync(join(root, "srv")).mode & 0o7777, 0o755);
    assert.equal(lstatSync(join(root, "srv/www")).mode & 0o7777, 0o750);
    const tool = lstatSync(join(root, "srv/www/a/tool"));
    assert.deepEqual([tool.uid, tool.gid, tool.mode & 0o7777], [0, 0, 0o755]);
    assert.equal(tool.ino, lstatSync(join(root, "srv/www/hard")).ino);
    assert.equal(readlinkSync(join(root, "srv/www/link")), "a/tool");
    const index = lstatSync(join(root, "srv/www/index.html"));
    assert.deepEqual([index.uid, index.mode & 0o7777, index.mtimeMs], [0, 0o644, 1_700_000_000_000]);
    assert.equal(readFileSync(join(root, "srv/www/index.html"), "utf8"), "<h1>hello</h1>");
  });
  const progress: string[] = [];
  const watched: Call = { ...call, report: ({ topic }) => progress.push(topic) };
  assert.equal(await store.build(made, watched), image);
  assert.deepEqual(progress, []);
  // Elsewhere, and at another time, the same input is the same image.
  const { store: other } = await freshStore();
  await using __ = other;
  assert.equal((await other.build(made, call)).digest, image.digest);
  assert.deepEqual(readdirSync(join(imageDir, "tmp")), []);
  assert.deepEqual(listMounts(imageDir), []);
});

test("files on top of an image keep its directories as they are and follow its links within it", async () => {
  const { store } = await freshStore();
  await using _ = store;
  const outside = room();
  const base = await loadBase(
    store,
    "base:1",
    entry({ name: "usr/", type: "5", mode: 0o755 }),
    entry({ name: "usr/bin/", type: "5", mode: 0o711, uid: 7, gid: 8, mtimeSec: 1_600_000_000 }),
    entry({ name: "usr/bin/old", mode: 0o755 }, "old"),
    entry({ name: "bin", type: "2", linkName: "usr/bin" }),
    entry({ name: "tmp/", type: "5", mode: 0o1777 }),
    entry({ name: "evil", type: "2", linkName: outside }),
    entry({ name: "climb", type: "2", linkName: "../../../../../../../../../.." }),
    entry({ name: "file" }, "a file"),
  );
  const one = entry({ name: "." }, "new");
  const image = await store.build(
    recipe({
      from: "base:1",
      entrypoint: ["/bin/new"],
      files: [files("/bin/new", one), files("/tmp/x", one), files("/evil/y", one), files("/climb/etc/z", one)],
    }),
    call,
  );
  assert.deepEqual(image.config.entrypoint, ["/bin/new"]);
  assert.deepEqual(image.config.command, []);
  assert.equal(image.layers[0]?.digest, base.layers[0]?.digest);
  await seen(image, (root) => {
    assert.equal(readlinkSync(join(root, "bin")), "usr/bin");
    assert.deepEqual(readdirSync(join(root, "usr/bin")).toSorted(), ["new", "old"]);
    const bin = lstatSync(join(root, "usr/bin"));
    assert.deepEqual([bin.mode & 0o7777, bin.uid, bin.gid, bin.mtimeMs], [0o711, 7, 8, 1_600_000_000_000]);
    assert.equal(lstatSync(join(root, "tmp")).mode & 0o7777, 0o1777);
    assert.equal(readFileSync(join(root, "etc/z"), "utf8"), "new");
  });
  assert.deepEqual(readdirSync(outside), []);
  await assert.rejects(store.build(recipe({ from: "base:1", files: [files("/file/x", one)] }), call), (error) =>
    isFault(error, "invalid"),
  );
});

test("what cannot be built is refused with the mend", async () => {
  const { store, imageDir } = await freshStore();
  await using _ = store;
  await loadBase(store, "base:1", entry({ name: "x" }, "x"));
  const one = entry({ name: "." }, "new");
  const cases: readonly (readonly [Partial<Recipe>, Reason])[] = [
    [{ from: "base:1", packages: ["nginx"] }, "unsupported"],
    [{ from: "localhost/shop/base" }, "not-found"],
    [{ packages: ["--allow-unauthenticated"] }, "invalid"],
    [{ packages: ["a b"] }, "invalid"],
    [{ packages: ["$(id)"] }, "invalid"],
    [{ reference: "UPPER" }, "invalid"],
    [{ files: [files("relative", one)] }, "invalid"],
    [{ files: [files("/", one)] }, "invalid"],
    [{ files: [files("/x")] }, "invalid"],
    [{ files: [files("/x", entry({ name: "../y" }, "y"))] }, "hostile"],
    [{ files: [files("/x", entry({ name: "/y" }, "y"))] }, "hostile"],
    [{ files: [files("/x", entry({ name: "h", type: "1", linkName: "../../etc/passwd" }))] }, "hostile"],
    [{ files: [files("/x", entry({ name: "d", type: "4", deviceMajor: 8 }))] }, "invalid"],
  ];
  for (const [change, reason] of cases) {
    await assert.rejects(store.build(recipe(change), call), (error) => {
      assert.ok(isFault(error, reason), `${JSON.stringify(change)}: ${String(error)}`);
      return true;
    });
  }
  assert.deepEqual(readdirSync(join(imageDir, "tmp")), []);
  assert.equal((await store.list(call)).length, 1);
});

test("a packed tree is the same bytes whenever it is packed", async () => {
  const content = files("/a/b", entry({ name: "./x" }, "x"));
  const empty = { resolve: () => undefined, directory: () => Promise.resolve(undefined) };
  const [one, two] = [join(room(), "tar"), join(room(), "tar")];
  await writeFileTar([content], empty, one, call);
  await writeFileTar([content], empty, two, call);
  assert.ok(readFileSync(one).equals(readFileSync(two)));
});

test("packages are unpacked without their scripts, busybox with its commands, always to the same bytes", async () => {
  const source = join(room(), "package");
  await mkdir(join(source, "DEBIAN"), { recursive: true });
  await mkdir(join(source, "bin"));
  const control = "Package: busybox-static\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example>\nDescription: x\n";
  await writeFile(join(source, "DEBIAN/control"), control);
  const witness = join(room(), "witness");
  await writeFile(join(source, "DEBIAN/postinst"), `#!/bin/sh\ntouch ${witness}\n`);
  await chmod(join(source, "DEBIAN/postinst"), 0o755);
  await copyFile("/bin/busybox", join(source, "bin/busybox"));
  const archive = join(room(), "busybox-static.deb");
  await run(["dpkg-deb", "--build", "--root-owner-group", source, archive], {}, call);
  const [one, two] = [join(room(), "tar"), join(room(), "tar")];
  await unpackPackages([archive], true, room(), one, call);
  await unpackPackages([archive], true, room(), two, call);
  assert.ok(readFileSync(one).equals(readFileSync(two)));
  assert.equal(existsSync(witness), false);
  const { stdout } = await run(["tar", "-tvf", one], {}, call);
  assert.match(stdout, /^drwxr-xr-x 0\/0 .* \.\/$/m);
  assert.match(stdout, /\.\/bin\/sh -> \/bin\/busybox$/m);
  assert.match(stdout, /\.\/usr\/bin\/awk -> \/bin\/busybox$/m);
});
