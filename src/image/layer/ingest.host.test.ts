import assert from "node:assert/strict";
import {
  createReadStream,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
  ftruncateSync,
  closeSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import * as fc from "fast-check";
import { backgroundCall } from "../../base/call.ts";
import { mountErofs, mountOverlay, unmount } from "../../host/mount.ts";
import { run } from "../../host/process.ts";
import { ingestLayer } from "./ingest.ts";
import { defaultLayerLimits } from "./limit.ts";
import { corpus, mutations } from "./mutation-fixture.ts";
import { entry, pax, tar } from "./tar-fixture.ts";
import { anyTree, makeTree, seeTree, seeXattrs } from "./tree-fixture.ts";

/** What GNU tar writes, our layer shows, as the kernel mounts it, exactly as GNU tar unpacks it. */

const call = backgroundCall();
let workDir = "";
let rounds = 0;

before(() => {
  workDir = mkdtempSync(join(tmpdir(), "croft-layer-"));
});
after(() => rmSync(workDir, { recursive: true, force: true }));

/** A fresh directory of the test's own, with `names` in it. */
function room<Name extends string>(...names: Name[]): Record<Name, string> & { readonly base: string } {
  rounds += 1;
  const base = join(workDir, `${rounds}`);
  mkdirSync(base);
  const paths: Record<string, string> = { base };
  for (const name of names) {
    paths[name] = join(base, name);
    mkdirSync(join(base, name));
  }
  return paths as Record<Name, string> & { readonly base: string };
}

async function ingestTar(bytes: Buffer, targetPath: string): Promise<void> {
  await ingestLayer(Readable.from([bytes]), { targetPath }, {}, defaultLayerLimits, call);
}

async function whileMounted<T>(image: string, target: string, look: () => T | Promise<T>): Promise<T> {
  await run(["fsck.erofs", image], {}, call);
  await mountErofs(image, target);
  try {
    return await look();
  } finally {
    await unmount(target);
  }
}

function readAt(path: string, position: number, sizeBytes: number): Buffer {
  const fd = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(sizeBytes);
    return bytes.subarray(0, readSync(fd, bytes, 0, sizeBytes, position));
  } finally {
    closeSync(fd);
  }
}

const tarOptions: readonly (readonly string[])[] = [
  ["--format=gnu"],
  ["--format=gnu", "--sparse"],
  ["--format=pax"],
  ["--format=pax", "--xattrs", "--xattrs-include=*"],
  ["--format=pax", "--sparse", "--sparse-version=0.0"],
  ["--format=pax", "--sparse", "--sparse-version=0.1"],
  ["--format=pax", "--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"],
];
const compressions: readonly ((bytes: Buffer) => Buffer)[] = [(bytes) => bytes, gzipSync, zstdCompressSync];

test("any tree in any format of GNU tar shows as GNU tar unpacks it", async () => {
  const property = fc.asyncProperty(
    anyTree(2),
    fc.constantFrom(...tarOptions),
    fc.constantFrom(...compressions),
    async (tree, options, compress) => {
      const { base, from, unpacked, mounted } = room("from", "unpacked", "mounted");
      try {
        await makeTree(tree, from, join(base, "stage"));
        const archive = join(base, "layer.tar");
        await run(["tar", "-c", "-f", archive, ...options, "-C", from, "."], {}, call);
        const xattrOptions = options.includes("--xattrs") ? ["--xattrs", "--xattrs-include=*"] : [];
        await run(["tar", "-x", "-p", "--numeric-owner", ...xattrOptions, "-f", archive, "-C", unpacked], {}, call);
        const image = join(base, "layer.erofs");
        await ingestTar(compress(readFileSync(archive)), image);
        await whileMounted(image, mounted, async () => {
          assert.deepEqual(seeTree(mounted), seeTree(unpacked));
          assert.deepEqual(await seeXattrs(mounted), await seeXattrs(unpacked));
        });
      } finally {
        rmSync(base, { recursive: true, force: true });
      }
    },
  );
  await fc.assert(property, { numRuns: 60 });
});

test("ustar and v7, whose names are short, are read alike", async () => {
  for (const format of ["ustar", "v7"]) {
    const { base, from, unpacked, mounted } = room("from", "unpacked", "mounted");
    const flat = { uid: 1000, gid: 50, mtimeSec: 1e9, holeBytes: 0, xattrs: {}, children: [] };
    await makeTree(
      [
        { ...flat, kind: "file", name: "a", mode: 0o4711, content: Buffer.alloc(5000, "x") },
        { ...flat, kind: "link", name: "b", mode: 0o644, content: Buffer.alloc(0) },
        { ...flat, kind: "symlink", name: "c", mode: 0o777, content: Buffer.alloc(2) },
        { ...flat, kind: "directory", name: "d", mode: 0o1777, content: Buffer.alloc(0) },
      ],
      from,
      join(base, "stage"),
    );
    const archive = join(base, "layer.tar");
    await run(["tar", "-c", "-f", archive, `--format=${format}`, "-C", from, "."], {}, call);
    await run(["tar", "-x", "-p", "--numeric-owner", "-f", archive, "-C", unpacked], {}, call);
    await ingestTar(readFileSync(archive), join(base, "layer.erofs"));
    await whileMounted(join(base, "layer.erofs"), mounted, () => {
      assert.deepEqual(seeTree(mounted), seeTree(unpacked));
    });
  }
});

test("a directory of 20,000 names is listed and each of them found", async () => {
  const { base, mounted } = room("mounted");
  const names = Array.from({ length: 20_000 }, (_, index) => `name-${(index * 7919) % 20_011}`);
  await ingestTar(tar(...names.map((name) => entry({ name: `big/${name}` }, name))), join(base, "layer.erofs"));
  await whileMounted(join(base, "layer.erofs"), mounted, () => {
    assert.deepEqual(readdirSync(join(mounted, "big")).sort(), [...names].sort());
    for (const name of names) assert.equal(readFileSync(join(mounted, "big", name), "utf8"), name);
  });
});

test("a sparse file beyond 4 GiB keeps its holes and takes no room for them", async () => {
  const { base, from, mounted } = room("from", "mounted");
  const sizeBytes = 5 * 2 ** 30 + 123;
  const marks = [0, 4096 * 3 + 17, 2 ** 32 - 2, sizeBytes - 4];
  const fd = openSync(join(from, "disk"), "wx");
  for (const mark of marks) writeSync(fd, "mark", mark);
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  for (const options of [["--format=gnu"], ["--format=pax"]]) {
    const archive = join(base, "layer.tar");
    await run(["tar", "-c", "-S", "-f", archive, ...options, "-C", from, "."], {}, call);
    const image = join(base, "layer.erofs");
    await ingestTar(readFileSync(archive), image);
    assert.ok(statSync(image).blocks * 512 < 2 ** 20, "holes take room on the disk");
    await whileMounted(image, mounted, () => {
      assert.equal(statSync(join(mounted, "disk")).size, sizeBytes);
      // All around each mark, and somewhere in the middle of nothing; reading all of it would take half a minute.
      for (const at of [...marks, 2 ** 31]) {
        const position = Math.max(0, at - 300_000);
        const wanted = readAt(join(from, "disk"), position, 600_000);
        assert.ok(readAt(join(mounted, "disk"), position, 600_000).equals(wanted), `differs around ${at}`);
      }
    });
  }
});

test("attributes and link targets too large for one block have room of their own", async () => {
  const { base, mounted } = room("mounted");
  const value = "v".repeat(60_000);
  const target = "t/".repeat(2047);
  const image = join(base, "layer.erofs");
  await ingestTar(
    tar(
      pax([["SCHILY.xattr.user.large", value]]),
      entry({ name: "file" }, "content"),
      pax([["SCHILY.xattr.user.large", value]]),
      entry({ name: "directory", type: "5", mode: 0o755 }),
      entry({ name: "directory/inside" }, "x"),
      pax([["linkpath", target]]),
      entry({ name: "link", type: "2" }),
    ),
    image,
  );
  await whileMounted(image, mounted, async () => {
    const { stdout } = await run(
      ["getfattr", "--only-values", "-n", "user.large", "file", "directory"],
      { cwd: mounted },
      call,
    );
    assert.equal(stdout, value + value);
    assert.equal(readFileSync(join(mounted, "file"), "utf8"), "content");
    assert.equal(readFileSync(join(mounted, "directory/inside"), "utf8"), "x");
    const link = await run(["readlink", "-n", "link"], { cwd: mounted }, call);
    assert.equal(link.stdout, target);
  });
});

test("whiteouts and opaque directories hide in an overlay what they hide in docker", async () => {
  const { base, lower, upper, merged } = room("lower", "upper", "merged");
  await ingestTar(
    tar(
      entry({ name: "kept" }, "lower"),
      entry({ name: "removed" }, "lower"),
      entry({ name: "replaced" }, "lower"),
      entry({ name: "opaque/old" }, "lower"),
      entry({ name: "merged/old" }, "lower"),
      entry({ name: "recreated/old" }, "lower"),
      entry({ name: "deep/er/gone" }, "lower"),
      entry({ name: "deep/er/stays" }, "lower"),
    ),
    join(base, "lower.erofs"),
  );
  await ingestTar(
    tar(
      entry({ name: ".wh.removed" }),
      // An entry of the same layer wins over a whiteout of its name, whichever comes first.
      entry({ name: "replaced" }, "upper"),
      entry({ name: ".wh.replaced" }),
      entry({ name: "opaque/new" }, "upper"),
      entry({ name: "opaque/.wh..wh..opq" }),
      entry({ name: "merged/new" }, "upper"),
      entry({ name: ".wh.recreated" }),
      entry({ name: "recreated/new" }, "upper"),
      entry({ name: "deep/er/.wh.gone" }),
      entry({ name: ".wh..wh.plnk/123" }, "left by AUFS"),
      entry({ name: ".wh..wh.aufs" }),
      entry({ name: ".wh.never-was" }),
    ),
    join(base, "upper.erofs"),
  );
  await whileMounted(join(base, "lower.erofs"), lower, () =>
    whileMounted(join(base, "upper.erofs"), upper, async () => {
      await mountOverlay({ lowers: [upper, lower], target: merged });
      try {
        const { stdout } = await run(["find", ".", "-type", "f", "-printf", "%P "], { cwd: merged }, call);
        const expected = "deep/er/stays kept merged/new merged/old opaque/new recreated/new replaced";
        assert.equal(stdout.trim().split(" ").sort().join(" "), expected);
        assert.equal(readFileSync(join(merged, "replaced"), "utf8"), "upper");
        for (const gone of ["removed", "never-was", "deep/er/gone", "opaque/old", "recreated/old"]) {
          assert.throws(() => statSync(join(merged, gone)), { code: "ENOENT" });
        }
      } finally {
        await unmount(merged);
      }
    }),
  );
});

test("what a damaged archive became, if it was not refused, is a sound file system", async () => {
  const { base } = room();
  const image = join(base, "layer.erofs");
  const limits = { ...defaultLayerLimits, maxUnpackedBytes: 2 ** 24 };
  let sound = 0;
  for (const { path } of corpus()) {
    for (const { seed, bytes } of mutations(readFileSync(path), 60)) {
      try {
        await ingestLayer(Readable.from([bytes]), { targetPath: image }, {}, limits, call);
      } catch {
        continue;
      }
      await run(["fsck.erofs", image], { attempted: `check ${path} damaged by seed ${seed}` }, call);
      sound += 1;
    }
  }
  assert.ok(sound > 50, `only ${sound} were not refused`);
});

test("a full disk is told, and nothing stays on it", async () => {
  const { base, full } = room("full");
  await run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", full], {}, call);
  try {
    const archive = join(base, "layer.tar");
    writeFileSync(archive, tar(entry({}, Buffer.alloc(4 * 2 ** 20, "x"))));
    await assert.rejects(
      ingestLayer(createReadStream(archive), { targetPath: join(full, "x") }, {}, defaultLayerLimits, call),
      { reason: "exhausted", message: /no room/ },
    );
    assert.deepEqual(readdirSync(full), []);
  } finally {
    await unmount(full);
  }
});
