import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { backgroundCall, type Call } from "../../base/call.ts";
import type { Fault, Reason } from "../../base/fault.ts";
import { sha256 } from "../../base/id.ts";
import { ingestLayer, type LayerExpectation, type LayerFacts } from "./ingest.ts";
import { defaultLayerLimits, type LayerLimits } from "./limit.ts";
import { entry, gnuMagic, headerBlock, pax, tar } from "./tar-fixture.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "croft-ingest-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

interface Attempt {
  readonly expected?: LayerExpectation;
  readonly limits?: Partial<LayerLimits>;
  readonly call?: Call;
  readonly keepBlob?: boolean;
}

function ingest(blob: Buffer, attempt: Attempt = {}): Promise<LayerFacts> {
  const kept = attempt.keepBlob === true ? { keepBlobPath: join(dir, "blob") } : {};
  return ingestLayer(
    Readable.from(blob.length === 0 ? [] : [blob]),
    { targetPath: join(dir, "layer"), ...kept },
    attempt.expected ?? {},
    { ...defaultLayerLimits, ...attempt.limits },
    attempt.call ?? backgroundCall(),
  );
}

async function refuses(blob: Buffer, reason: Reason, message: RegExp, attempt: Attempt = {}): Promise<void> {
  await assert.rejects(ingest(blob, attempt), { name: "Fault", reason, message });
  assert.deepEqual(readdirSync(dir), [], "something of a refused layer stayed");
}

test("gzip, several gzip members, zstd and nothing give the same file system and the true digests", async () => {
  const plain = tar(entry({ name: "a" }, "one"), entry({ name: "b" }, Buffer.alloc(100_000, "two")));
  const blobs = [
    plain,
    gzipSync(plain),
    Buffer.concat([gzipSync(plain.subarray(0, 700)), gzipSync(plain.subarray(700))]),
    zstdCompressSync(plain),
  ];
  const images: Buffer[] = [];
  for (const blob of blobs) {
    const expected = { digest: sha256(blob), sizeBytes: blob.length, diffId: sha256(plain) };
    const facts = await ingest(blob, { expected, keepBlob: true });
    const { erofsBytes, ...rest } = facts;
    assert.deepEqual(rest, { ...expected, unpackedBytes: plain.length, entries: 2 });
    const image = readFileSync(join(dir, "layer"));
    assert.equal(image.length, erofsBytes);
    assert.deepEqual(readFileSync(join(dir, "blob")), blob);
    assert.deepEqual(readdirSync(dir).sort(), ["blob", "layer"]);
    images.push(image);
  }
  for (const image of images) assert.ok(image.equals(images[0] ?? Buffer.alloc(0)));
});

test("a blob of no bytes, and a tar of no entries, are an empty layer", async () => {
  assert.equal((await ingest(Buffer.alloc(0))).entries, 0);
  assert.equal((await ingest(tar())).entries, 0);
});

test("a layer that is not what its manifest says is refused, and nothing of it stays", async () => {
  const plain = tar(entry({ name: "a" }, "one"));
  const blob = gzipSync(plain);
  const wrong = sha256("other");
  const right: LayerExpectation = { digest: sha256(blob), sizeBytes: blob.length };
  await refuses(blob, "corrupt", /blob has the digest/, { expected: { digest: wrong }, keepBlob: true });
  await refuses(blob, "corrupt", /tar has the digest/, { expected: { ...right, diffId: wrong }, keepBlob: true });
  await refuses(blob, "corrupt", /longer than/, { expected: { sizeBytes: blob.length - 1 } });
  await refuses(blob.subarray(0, -9), "corrupt", /ends after [0-9]+ of/, { expected: right });
  await refuses(blob.subarray(0, -9), "corrupt", /compressed data is damaged/);
  await refuses(Buffer.concat([blob, Buffer.from("tail")]), "corrupt", /compressed data is damaged/);
  const flipped = Buffer.from(blob);
  flipped.writeUInt8((flipped[20] ?? 0) ^ 0xff, 20);
  await refuses(flipped, "corrupt", /./);
});

test("what a refused layer was, is said: layer, entry and the next action", async () => {
  const blob = tar(entry({ name: "good" }), entry({ name: Buffer.from("../évil").toString("latin1") }));
  const digest = sha256(blob);
  await assert.rejects(ingest(blob, { expected: { digest } }), (thrown: Error) => {
    assert.ok(thrown.message.includes(digest), thrown.message);
    assert.ok(thrown.message.includes('"../évil"'), thrown.message);
    assert.match(String((thrown as { hint?: string }).hint), /do not trust/);
    return true;
  });
});

test("a name of a MiB is not said whole", async () => {
  const blob = tar(pax([["path", "n".repeat(1_000_000)]]), entry({}));
  await assert.rejects(ingest(blob), ({ message, detail }: Fault) => {
    return message.length < 1000 && JSON.stringify(detail).length < 5000;
  });
});

const hostile: readonly (readonly [what: string, blob: Buffer, reason: Reason, message: RegExp])[] = [
  ["a name with ..", tar(entry({ name: "a/../../b" })), "hostile", /"\.\."/],
  ["a name that is ..", tar(entry({ name: "..", type: "5" })), "hostile", /"\.\."/],
  ["an entry beneath a file", tar(entry({ name: "a" }), entry({ name: "a/b" })), "hostile", /beneath "a", a file/],
  [
    "an entry beneath a symbolic link",
    tar(entry({ name: "a", type: "2", linkName: "/etc" }), entry({ name: "a/passwd" })),
    "hostile",
    /beneath "a", a symbolic link, which is never followed/,
  ],
  ["a hard link to nothing", tar(entry({ name: "a", type: "1", linkName: "b" })), "hostile", /hard link to "b"/],
  ["a hard link to outside", tar(entry({ name: "a", type: "1", linkName: "../b" })), "hostile", /"\.\."/],
  [
    "a hard link to a directory",
    tar(entry({ name: "d", type: "5" }), entry({ name: "a", type: "1", linkName: "d" })),
    "hostile",
    /is a directory/,
  ],
  [
    "a hard link through a symbolic link",
    tar(
      entry({ name: "d/f" }),
      entry({ name: "s", type: "2", linkName: "d" }),
      entry({ name: "a", type: "1", linkName: "s/f" }),
    ),
    "hostile",
    /hard link to "s\/f"/,
  ],
  [
    "a hard link to itself",
    tar(entry({ name: "a" }), entry({ name: "a", type: "1", linkName: "a" })),
    "corrupt",
    /which is itself/,
  ],
  ["a root that is a file", tar(entry({ name: "./" })), "hostile", /root of the layer/],
  ["a whiteout of nothing", tar(entry({ name: "d/.wh." })), "hostile", /whiteout of ""/],
  ["a whiteout of ..", tar(entry({ name: ".wh..." })), "hostile", /whiteout of "\.\."/],
  ["an entry beneath a whiteout", tar(entry({ name: ".wh.a/b" })), "hostile", /is a whiteout/],
  ["a name of 256 bytes", tar(pax([["path", "n".repeat(256)]]), entry({})), "exhausted", /256 bytes/],
  ["a path of 5000 bytes", tar(pax([["path", "n/".repeat(2500)]]), entry({})), "exhausted", /5000 bytes/],
  ["a path of 300 directories", tar(pax([["path", "n/".repeat(300)]]), entry({})), "exhausted", /299|300/],
  ["a link without a target", tar(entry({ type: "2" })), "corrupt", /target of 0 bytes/],
  ["an owner beyond 32 bits", tar(pax([["uid", "4294967295"]]), entry({})), "corrupt", /owner 4294967295/],
  ["a device beyond Linux", tar(entry({ type: "3", deviceMajor: 5000 })), "corrupt", /device number/],
  [
    "attributes beyond an inode",
    tar(pax([["SCHILY.xattr.user.a", "v".repeat(70_000)]]), entry({})),
    "exhausted",
    /attributes/,
  ],
  [
    "attributes of the root beyond the first block",
    tar(pax([["SCHILY.xattr.user.a", "v".repeat(4000)]]), entry({ name: "./", type: "5" })),
    "exhausted",
    /root/,
  ],
  ["a size beyond the limit", tar(pax([["size", "9000000000000000"]]), entry({})), "exhausted", /larger than/],
  [
    "a sparse file of petabytes",
    tar(
      pax([
        ["GNU.sparse.size", "9000000000000000"],
        ["GNU.sparse.map", ""],
      ]),
      entry({}),
    ),
    "exhausted",
    /larger than/,
  ],
  ["a tar cut short", entry({ sizeBytes: 5000 }, "x"), "corrupt", /middle of an entry/],
  ["no tar at all", Buffer.alloc(2000, "text "), "corrupt", /./],
];
for (const [what, blob, reason, message] of hostile) {
  test(`refused: ${what}`, async () => {
    await refuses(blob, reason, message);
    await refuses(gzipSync(blob), reason, message);
  });
}

test("absolute names are contained: they are names beneath the layer's root", async () => {
  const absolute = tar(entry({ name: "/etc/x" }, "y"), entry({ name: "/etc/z", type: "1", linkName: "/etc/x" }));
  const relative = tar(entry({ name: "etc/x" }, "y"), entry({ name: "etc/z", type: "1", linkName: "etc/x" }));
  // The file systems differ by nothing but the identity that comes from the digest.
  const images = [];
  for (const blob of [absolute, relative]) {
    await ingest(blob);
    images.push(readFileSync(join(dir, "layer")).subarray(1152));
  }
  assert.deepEqual(images[0], images[1]);
});

test("as many entries as the limit says are taken, and not one more", async () => {
  const many = tar(...Array.from({ length: 30 }, (_, index) => entry({ name: `${index}` })));
  await ingest(many, { limits: { maxEntries: 30 } });
  rmSync(join(dir, "layer"));
  await refuses(many, "exhausted", /more than 29 entries/, { limits: { maxEntries: 29 } });
});

test("a directory that the tar only implies counts as an entry", async () => {
  await refuses(tar(entry({ name: "a/b/c/d" })), "exhausted", /more than 3 entries/, { limits: { maxEntries: 3 } });
});

test("a layer that expands without bound is refused before it is unpacked", async () => {
  const bomb = gzipSync(tar(entry({}, Buffer.alloc(40 * 2 ** 20))));
  await refuses(bomb, "hostile", /expands more than 200 times/, { limits: { ratioFloorBytes: 2 ** 20 } });
  await refuses(bomb, "exhausted", /larger than 10485760/, { limits: { maxUnpackedBytes: 10 * 2 ** 20 } });
  const padded = gzipSync(Buffer.concat([tar(entry({})), Buffer.alloc(20 * 2 ** 20)]));
  await refuses(padded, "exhausted", /unpacks to more than/, { limits: { maxUnpackedBytes: 10 * 2 ** 20 } });
  await refuses(tar(entry({ name: "n".repeat(90) })), "exhausted", /names take/, { limits: { maxNameBytes: 80 } });
});

test("a blob that is larger than what may come out of it is refused before its first byte", async () => {
  const expected = { sizeBytes: defaultLayerLimits.maxUnpackedBytes + 1 };
  const source = Readable.from([Buffer.from("x")]);
  const options = { targetPath: join(dir, "layer") };
  await assert.rejects(ingestLayer(source, options, expected, defaultLayerLimits, backgroundCall()), {
    reason: "exhausted",
    message: /its blob has more/,
  });
  assert.equal(source.readableDidRead, false);
  assert.deepEqual(readdirSync(dir), []);
});

function fileWith(xattr: string): Buffer {
  return tar(pax([[`SCHILY.xattr.${xattr}`, "value-of-it"]]), entry({ name: "f" }));
}

test("overlayfs's own attributes in a layer are left out, other ones stay", async () => {
  await ingest(fileWith("trusted.overlay.redirect"));
  assert.ok(!readFileSync(join(dir, "layer")).includes("value-of-it"));
  await ingest(fileWith("user.overlay.opaque"));
  assert.ok(!readFileSync(join(dir, "layer")).includes("value-of-it"));
  await ingest(fileWith("security.capability"));
  assert.ok(readFileSync(join(dir, "layer")).includes("value-of-it"));
});

test("an error or the end of the call in the middle leaves nothing", async () => {
  const blob = tar(entry({}, Buffer.alloc(3 * 2 ** 20)));
  async function* failing(): AsyncGenerator<Buffer> {
    yield blob.subarray(0, 2 ** 20);
    throw new Error("the line is cut");
  }
  const options = { targetPath: join(dir, "layer"), keepBlobPath: join(dir, "blob") };
  await assert.rejects(ingestLayer(failing(), options, {}, defaultLayerLimits, backgroundCall()), /the line is cut/);
  assert.deepEqual(readdirSync(dir), []);

  const controller = new AbortController();
  async function* cancelling(): AsyncGenerator<Buffer> {
    yield blob.subarray(0, 2 ** 20);
    controller.abort();
    yield blob.subarray(2 ** 20);
  }
  const call = { ...backgroundCall(), signal: controller.signal };
  await assert.rejects(ingestLayer(cancelling(), options, {}, defaultLayerLimits, call), { reason: "cancelled" });
  assert.deepEqual(readdirSync(dir), []);
});

test("an earlier file of the same name stays until the new one is right", async () => {
  await ingest(tar(entry({}, "good")));
  const good = readFileSync(join(dir, "layer"));
  await assert.rejects(ingest(tar(entry({}, "evil")), { expected: { digest: sha256("x") } }));
  assert.deepEqual(readFileSync(join(dir, "layer")), good);
});

test("old sparse headers that go on without end are refused", async () => {
  const header = headerBlock({ type: "S", magic: gnuMagic, patch: (block) => void block.writeUInt8(1, 482) });
  const more = Buffer.alloc(512);
  for (let index = 0; index < 21; index += 1) more.write("00000000000\0".repeat(2), index * 24, "latin1");
  more.writeUInt8(1, 504);
  await refuses(Buffer.concat([header, ...Array<Buffer>(14_000).fill(more)]), "exhausted", /more than/);
});
