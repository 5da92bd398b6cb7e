import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import * as fc from "fast-check";
import { backgroundCall, systemClock } from "../../base/call.ts";
import { type Reason, isFault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import { sha256 } from "../../base/id.ts";
import { ImageStore } from "../images.ts";
import { entry, pax, tar } from "../layer/tar-fixture.ts";
import { mediaType } from "../manifest.ts";
import { type SampleImage, imageOf, sampleImage, sampleLayer } from "../registry/sample-image-fixture.ts";
import { Spool } from "./spool.ts";

const call = backgroundCall();
let rootDir = "";
before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "croft-archive-"));
});
after(async () => await rm(rootDir, { recursive: true, force: true }));

async function freshStore(): Promise<{ store: ImageStore; imageDir: string }> {
  const home = homeBeneath(await mkdtemp(join(rootDir, "home-")));
  return { store: await ImageStore.open(home, systemClock), imageDir: join(home.libDir, "image") };
}

/** In pieces of odd sizes, as they come from a network. */
function pieces(bytes: Buffer, size = 7919): Readable {
  const all: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) all.push(bytes.subarray(at, at + size));
  return Readable.from(all);
}

async function collected(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const blobFile = (digest: string): string => `blobs/sha256/${digest.slice("sha256:".length)}`;

function ociParts(image: SampleImage, name: string, prefix = ""): Buffer[] {
  const descriptor = {
    mediaType: mediaType.manifest,
    digest: image.digest,
    size: image.manifest.length,
    annotations: { "org.opencontainers.image.ref.name": name },
  };
  return [
    entry({ name: `${prefix}oci-layout` }, JSON.stringify({ imageLayoutVersion: "1.0.0" })),
    entry({ name: `${prefix}index.json` }, JSON.stringify({ schemaVersion: 2, manifests: [descriptor] })),
    entry({ name: prefix + blobFile(image.digest) }, image.manifest),
    ...[...image.blobs].map(([digest, bytes]) => entry({ name: prefix + blobFile(digest) }, bytes)),
  ];
}

/** As docker wrote it before version 25: a folder for each layer, and links where two images share one. */
function legacyParts(images: readonly { image: SampleImage; tags: readonly string[] | null }[]): Buffer[] {
  const parts: Buffer[] = [];
  const written = new Map<string, string>();
  const list = images.map(({ image, tags }, position) => {
    const layers = image.layers.map((layer, at) => {
      const name = `image${position}-layer${at}/layer.tar`;
      const known = written.get(layer.diffId);
      if (known === undefined) parts.push(entry({ name }, layer.tar));
      else parts.push(entry({ name, type: "2", linkName: `../${known}` }));
      written.set(layer.diffId, known ?? name);
      return name;
    });
    const config = `${sha256(image.config).slice(7)}.json`;
    parts.push(entry({ name: config }, image.config));
    return { Config: config, RepoTags: tags, Layers: layers };
  });
  return [...parts, entry({ name: "manifest.json" }, JSON.stringify(list))];
}

const image = sampleImage(["one".repeat(1000), "two"]);

test("an OCI layout is loaded, plain and compressed, with its very digests", async () => {
  const plain = tar(...ociParts(image, "localhost:5000/sample:1"));
  for (const bytes of [
    plain,
    gzipSync(plain),
    zstdCompressSync(plain),
    tar(...ociParts(image, "localhost:5000/sample:1", "./")),
  ]) {
    const { store, imageDir } = await freshStore();
    await using _ = store;
    const [loaded] = await store.load(pieces(bytes), call);
    assert.equal(loaded?.digest, image.digest);
    assert.deepEqual(loaded.references, ["localhost:5000/sample:1"]);
    assert.equal(await store.find("localhost:5000/sample:1", call), loaded);
    assert.deepEqual(readdirSync(join(imageDir, "tmp")), []);
  }
});

test("docker's old layout is loaded, with layers that are links and images without a name", async () => {
  const other = imageOf(
    [image.layers[0], sampleLayer(tar(entry({ name: "x" }, "three")))].filter((layer) => layer !== undefined),
  );
  const archive = tar(
    ...legacyParts([
      { image, tags: ["nginx:1", "shop/web:2"] },
      { image: other, tags: null },
    ]),
  );
  const { store } = await freshStore();
  await using _ = store;
  const [first, second] = await store.load(pieces(archive), call);
  assert.deepEqual(first?.references, ["docker.io/library/nginx:1", "docker.io/shop/web:2"]);
  assert.deepEqual(second?.references, []);
  assert.equal(first.layers[0]?.path, second.layers[0]?.path);
  assert.deepEqual(
    second.layers.map(({ digest }) => digest),
    other.layers.map(({ diffId }) => diffId),
  );
  const again = await store.load(pieces(archive), call);
  assert.deepEqual(
    again.map(({ digest }) => digest),
    [first.digest, second.digest],
  );
});

test("what is saved is loaded elsewhere as the same image, in both formats, and saving again gives the same bytes", async () => {
  const { store } = await freshStore();
  await using _ = store;
  await store.load(pieces(tar(...ociParts(image, "localhost:5000/sample:1"))), call);
  await store.tag("localhost:5000/sample:1", "other/name:2", call);
  for (const format of ["oci", "docker"] as const) {
    const saved = await collected(store.save(["localhost:5000/sample:1", "other/name:2"], format, call));
    assert.ok(saved.equals(await collected(store.save(["localhost:5000/sample:1", "other/name:2"], format, call))));
    const { store: second } = await freshStore();
    await using _ = second;
    const [loaded] = await second.load(pieces(saved), call);
    assert.equal(loaded?.digest, image.digest);
    assert.deepEqual(loaded.references, ["docker.io/other/name:2", "localhost:5000/sample:1"]);
  }
});

test("the docker format alone is enough for readers that do not know the other", async () => {
  const { store } = await freshStore();
  await using _ = store;
  await store.load(pieces(tar(...ociParts(image, "localhost:5000/sample:1"))), call);
  const saved = await collected(store.save(["localhost:5000/sample:1"], "docker", call));
  // The same archive with the other index out of sight.
  const at = saved.indexOf("index.json");
  saved.write("undex.json", at);
  const block = saved.subarray(at, at + 512);
  block.write("        ", 148, "latin1");
  block.write(
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, "0")}\0 `,
    148,
    "latin1",
  );
  const { store: second } = await freshStore();
  await using __ = second;
  const [loaded] = await second.load(pieces(saved), call);
  assert.deepEqual(
    loaded?.layers.map(({ digest }) => digest),
    image.layers.map(({ diffId }) => diffId),
  );
});

test("saving what is not here is refused before a byte is written; a reader that stops ends the writer", async () => {
  const { store } = await freshStore();
  await using _ = store;
  await assert.rejects(collected(store.save(["nginx"], "oci", call)), (error) => isFault(error, "not-found"));
  await store.load(pieces(tar(...ociParts(image, "localhost:5000/sample:1"))), call);
  for await (const chunk of store.save(["localhost:5000/sample:1"], "oci", call)) {
    assert.ok(chunk.length > 0);
    break;
  }
});

async function refused(bytes: Buffer, reason: Reason, message?: RegExp): Promise<void> {
  const { store, imageDir } = await freshStore();
  await using _ = store;
  await assert.rejects(store.load(pieces(bytes), call), (error) => {
    assert.ok(isFault(error, reason), `${String(error)} is not ${reason}`);
    if (message !== undefined) assert.match(error.message, message);
    return true;
  });
  assert.deepEqual(await store.list(call), []);
  assert.deepEqual(readdirSync(join(imageDir, "tmp")), []);
}

test("archives that lie are refused, and nothing of them stays", async () => {
  const parts = ociParts(image, "sample:1");
  const without = (name: string): Buffer[] => parts.filter((part) => !part.subarray(0, 100).includes(name));
  const [layer] = image.layers;
  assert.ok(layer !== undefined);
  await refused(tar(entry({ name: "etc/passwd" }, "root")), "invalid", /neither/);
  await refused(Buffer.alloc(0), "invalid");
  await refused(Buffer.from("no tar at all"), "corrupt", /read the archive of images/);
  await refused(tar(...without(blobFile(layer.digest).slice(-20))), "corrupt", /lacks/);
  await refused(tar(...without("index.json"), entry({ name: "index.json" }, "[]")), "corrupt");
  const other = sampleImage(["other"]);
  const swapped = [...without(layer.digest.slice(-20)), entry({ name: blobFile(layer.digest) }, other.layers[0]?.blob)];
  await refused(tar(...swapped), "corrupt", /unpack layer/);
  const badConfig = [
    ...without(sha256(image.config).slice(-20)),
    entry({ name: blobFile(sha256(image.config)) }, "{}"),
  ];
  await refused(tar(...badConfig), "corrupt");
  await refused(gzipSync(tar(...parts)).subarray(0, 900), "corrupt");
  await refused(tar(...parts).subarray(0, 3000), "corrupt");
});

test("an image of more layers than can be stacked is refused before any is looked at", async () => {
  for (const count of [401, 100_000]) {
    const config = JSON.stringify({ rootfs: { diff_ids: Array.from({ length: count }, () => sha256("x")) } });
    const list = [{ Config: "config.json", RepoTags: null, Layers: Array.from({ length: count }, () => "none") }];
    const documents = [entry({ name: "config.json" }, config), entry({ name: "manifest.json" }, JSON.stringify(list))];
    await refused(tar(...documents), "unsupported", /at most 400/);
  }
});

test("names and links in an archive lead nowhere but into it", async () => {
  const escape = [
    { Config: "../../../../etc/passwd", RepoTags: null, Layers: [] },
    { Config: "/etc/passwd", RepoTags: null, Layers: [] },
    { Config: "link", RepoTags: null, Layers: [] },
    { Config: "loop", RepoTags: null, Layers: [] },
    { Config: "", RepoTags: null, Layers: [] },
    { Config: "__proto__", RepoTags: null, Layers: [] },
  ];
  for (const value of escape) {
    const archive = tar(
      entry({ name: "link", type: "2", linkName: "/etc/passwd" }),
      entry({ name: "loop", type: "2", linkName: "loop" }),
      entry({ name: "../../../../etc/passwd" }, "{}"),
      entry({ name: "/etc/passwd" }, "{}"),
      entry({ name: "device", type: "3", deviceMajor: 1, deviceMinor: 5 }),
      entry({ name: "manifest.json" }, JSON.stringify([value])),
    );
    await refused(archive, "corrupt", /lacks/);
  }
});

test("an archive that expands without bound is refused", async () => {
  const zeros = gzipSync(Buffer.alloc(32 * 2 ** 20));
  const huge = Buffer.concat([
    gzipSync(entry({ name: "x", sizeBytes: 2 ** 32 })),
    ...Array.from({ length: 10 }, () => zeros),
  ]);
  await refused(huge, "hostile", /expands/);
});

test("whatever an archive is made of, everything else has its turn while it is read", async () => {
  // A name for all that follows, long to read; many small headers, each full of records; and all of it at once.
  const long = pax([["path", "x".repeat(2 ** 20 - 100)]], "g");
  const header = pax(Array.from({ length: 80 }, () => ["a", "b"] as const));
  const entries = Array.from({ length: 5000 }, (_, at) => [header, entry({ name: `${at}`, type: "5" })]).flat();
  const { store } = await freshStore();
  await using _ = store;
  let turnMs = performance.now();
  let longestMs = 0;
  const note = (): void => {
    longestMs = Math.max(longestMs, performance.now() - turnMs);
    turnMs = performance.now();
  };
  const ticking = setInterval(note, 1);
  try {
    const archive = Readable.from([tar(long, ...entries)]);
    await assert.rejects(store.load(archive, call), (error) => isFault(error, "invalid"));
  } finally {
    note();
    clearInterval(ticking);
  }
  assert.ok(longestMs < 1000, `nothing else had its turn for ${longestMs} ms`);
});

test("an archive has an end, also one that holds nothing", async () => {
  const directory = await mkdtemp(join(rootDir, "spool-"));
  const empty = gzipSync(Buffer.alloc(0));
  const nothing = Buffer.concat(Array.from({ length: 100_000 }, () => empty));
  const plain = tar(entry({ name: "x" }, Buffer.alloc(2 ** 20)));
  for (const bytes of [nothing, plain, gzipSync(plain)]) {
    await assert.rejects(Spool.read(pieces(bytes), directory, call, 2 ** 20), (error) => isFault(error, "exhausted"));
    await rm(join(directory, "1"), { force: true });
  }
  await Spool.read(pieces(plain), directory, call, 2 * 2 ** 20);
});

test("any damage to an archive gives the same image or a Fault", async () => {
  const bytes = tar(...legacyParts([{ image: sampleImage(["x"]), tags: ["sample:1"] }]));
  const { store, imageDir } = await freshStore();
  await using _ = store;
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ flip;
      try {
        await store.load(pieces(damaged), call);
      } catch (error) {
        assert.ok(isFault(error) && !["bug", "failed"].includes(error.reason), String(error));
      }
      assert.deepEqual(readdirSync(join(imageDir, "tmp")), []);
    }),
    { numRuns: 150 },
  );
});
