import assert from "node:assert/strict";
import { readdirSync, writeFileSync } from "node:fs";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { backgroundCall, systemClock } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { type Home, homeBeneath } from "../base/home.ts";
import { sha256 } from "../base/id.ts";
import type { Recipe } from "./contract.ts";
import { ImageStore } from "./images.ts";
import { entry, tar } from "./layer/tar-fixture.ts";
import { LyingRegistry } from "./registry/lying-registry-fixture.ts";
import { type SampleImage, imageOf, sampleImage, sampleLayer } from "./registry/sample-image-fixture.ts";

const call = backgroundCall();
let rootDir = "";
before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "croft-images-"));
});
after(async () => await rm(rootDir, { recursive: true, force: true }));

async function freshHome(): Promise<Home> {
  return homeBeneath(await mkdtemp(join(rootDir, "home-")));
}

function archiveOf(image: SampleImage, ...names: readonly string[]): Readable {
  const list = [{ Config: "config.json", RepoTags: names, Layers: image.layers.map((_, at) => `${at}`) }];
  const layers = image.layers.map((layer, at) => entry({ name: `${at}` }, layer.tar));
  const config = entry({ name: "config.json" }, image.config);
  return Readable.from([tar(...layers, config, entry({ name: "manifest.json" }, JSON.stringify(list)))]);
}

function filesOf(home: Home): readonly string[] {
  const parts = ["blob", "layer", "manifest", "name", "step", "tmp"];
  return parts
    .flatMap((part) => readdirSync(join(home.libDir, "image", part)).map((name) => `${part}/${name}`))
    .toSorted();
}

test("what the store holds is there again when it is opened again", async () => {
  const home = await freshHome();
  const before = await ImageStore.open(home, systemClock);
  await before.load(archiveOf(sampleImage(["a", "b"]), "one:1", "two:2"), call);
  const [image] = await before.list(call);
  await before.close();
  writeFileSync(join(home.libDir, "image/tmp/left-over"), "x");
  for (const part of ["blob", "name"]) writeFileSync(join(home.libDir, "image", part, "0123.tmp"), "x");
  const files = filesOf(home).filter((name) => !/left-over|0123/.test(name));
  await using store = await ImageStore.open(home, systemClock);
  assert.deepEqual(await store.list(call), [image]);
  assert.deepEqual(await store.find("two:2", call), image);
  assert.ok(image !== undefined);
  assert.deepEqual(await store.get(image.digest, call), image);
  assert.deepEqual(filesOf(home), files);
});

test("names are given, moved and taken away; by digest all of them", async () => {
  await using store = await ImageStore.open(await freshHome(), systemClock);
  await store.load(archiveOf(sampleImage(["a"]), "a:1"), call);
  await store.load(archiveOf(sampleImage(["b"]), "b:1"), call);
  const [a, b] = [await store.find("a:1", call), await store.find("b:1", call)];
  assert.ok(a !== undefined && b !== undefined);
  await store.tag("a:1", "live", call);
  assert.equal((await store.find("live", call))?.digest, a.digest);
  await store.tag(b.digest, "live", call);
  assert.deepEqual((await store.find("b:1", call))?.references, [
    "docker.io/library/b:1",
    "docker.io/library/live:latest",
  ]);
  assert.deepEqual((await store.find("a:1", call))?.references, ["docker.io/library/a:1"]);
  await store.remove("live", call);
  assert.equal(await store.find("live", call), undefined);
  await store.tag("a:1", "second", call);
  await store.remove(a.digest, call);
  assert.deepEqual((await store.get(a.digest, call)).references, []);
  for (const attempt of [store.remove("a:1", call), store.tag("none", "x", call), store.get(sha256("none"), call)]) {
    await assert.rejects(attempt, (error) => isFault(error, "not-found"));
  }
  await assert.rejects(store.tag("b:1", `x@${a.digest}`, call), (error) => isFault(error, "invalid"));
});

test("a name moved by many at once is the same in memory and on disk", async () => {
  const home = await freshHome();
  await using store = await ImageStore.open(home, systemClock);
  const texts = ["a", "b", "c", "d"];
  for (const text of texts) await store.load(archiveOf(sampleImage([text]), `${text}:1`), call);
  await Promise.all(Array.from({ length: 40 }, (_, at) => store.tag(`${texts[at % 4]}:1`, "live", call)));
  await using again = await ImageStore.open(home, systemClock);
  assert.deepEqual((await again.find("live", call))?.digest, (await store.find("live", call))?.digest);
});

test("collecting keeps what a name or a generation needs, and what is shared", async () => {
  const home = await freshHome();
  await using store = await ImageStore.open(home, systemClock);
  const shared = sampleLayer(tar(entry({ name: "shared" }, "shared")));
  const own = (text: string): SampleImage => imageOf([shared, sampleLayer(tar(entry({ name: text }, text)))]);
  await store.load(archiveOf(own("named"), "named:1"), call);
  const [kept] = await store.load(archiveOf(own("kept"), "kept:1"), call);
  await store.load(archiveOf(own("lost"), "lost:1"), call);
  assert.ok(kept !== undefined);
  const named = filesOf(home).length;
  await store.remove("kept:1", call);
  await store.remove("lost:1", call);
  const { images, freedBytes } = await store.collect([kept.digest], call);
  assert.equal(images, 1);
  assert.ok(freedBytes > 0);
  // Of the lost image: its manifest, configuration and own layer, twice; and two names.
  assert.equal(filesOf(home).length, named - 4 - 2);
  assert.equal((await store.get(kept.digest, call)).layers.length, 2);
  assert.deepEqual(await store.collect([], call).then(({ images }) => images), 1);
  assert.equal((await store.list(call)).length, 1);
  await store.remove("named:1", call);
  await store.collect([], call);
  assert.deepEqual(filesOf(home), []);
  await store.load(archiveOf(own("named"), "named:1"), call);
  assert.equal((await store.find("named:1", call))?.layers.length, 2);
});

test("collecting while images come takes nothing from them", async () => {
  const image = sampleImage(["a", "b", "c"]);
  await using registry = await LyingRegistry.start(image);
  const home = await freshHome();
  await using store = await ImageStore.open(home, systemClock);
  for (let round = 0; round < 15; round += 1) {
    const state = { isPulling: true };
    const pulling = store.pull(registry.reference, {}, call).finally(() => (state.isPulling = false));
    while (state.isPulling) await store.collect([], call);
    const pulled = await pulling;
    assert.equal((await store.find(registry.reference, call))?.digest, pulled.digest);
    for (const format of ["oci", "docker"] as const) {
      for await (const chunk of store.save([registry.reference], format, call)) assert.ok(chunk.length > 0);
    }
    await store.remove(registry.reference, call);
    await store.collect([], call);
    assert.deepEqual(filesOf(home), []);
  }
});

test("content damaged on the disk is found out, and pulling again mends it", async () => {
  const image = sampleImage(["a".repeat(5000), "b"]);
  await using registry = await LyingRegistry.start(image);
  const home = await freshHome();
  const [layer] = image.layers;
  assert.ok(layer !== undefined);
  const blobPath = join(home.libDir, "image/blob", layer.digest.slice(7));
  {
    await using store = await ImageStore.open(home, systemClock);
    await store.pull(registry.reference, {}, call);
    await writeFile(blobPath, Buffer.alloc(layer.blob.length));
    const saving = async (): Promise<void> => {
      for await (const _ of store.save([registry.reference], "oci", call));
    };
    await assert.rejects(saving(), (error) => isFault(error, "corrupt"));
    const recipe = { reference: "localhost/x/site", from: registry.reference, packages: [], files: [], fresh: false };
    await assert.rejects(store.build({ ...recipe, env: {} }, call), (error) => isFault(error, "corrupt"));
    await store.pull(registry.reference, {}, call);
    await saving();
    await truncate(blobPath, 10);
  }
  // A file of another size is noticed at once: the image is not here until it is pulled again.
  await using store = await ImageStore.open(home, systemClock);
  assert.equal(await store.find(registry.reference, call), undefined);
  await assert.rejects(store.get(image.digest, call), (error) => isFault(error, "not-found"));
  await store.pull(registry.reference, {}, call);
  assert.equal((await store.find(registry.reference, call))?.digest, image.digest);
});

test("what a manifest lies about a layer that is here takes nothing from those who need it", async () => {
  const image = sampleImage(["a".repeat(5000)]);
  const [layer] = image.layers;
  assert.ok(layer !== undefined);
  await using registry = await LyingRegistry.start(image);
  await using store = await ImageStore.open(await freshHome(), systemClock);
  await store.pull(registry.reference, {}, call);
  for (const lies of [{ sizeBytes: 10 }, { sizeBytes: 10_000_000 }, { diffId: sha256("else") }]) {
    await using liar = await LyingRegistry.start(imageOf([layer], undefined, lies));
    await assert.rejects(store.pull(liar.reference, {}, call), (error) => isFault(error, "corrupt"));
  }
  const recipe = { reference: "localhost/x/site", from: registry.reference, packages: [], files: [], fresh: false };
  const built = await store.build({ ...recipe, env: { B: "1" } }, call);
  assert.equal(built.layers[0]?.digest, layer.diffId);
});

test("the same build asked for many times at once is done once", async () => {
  const home = await freshHome();
  await using store = await ImageStore.open(home, systemClock);
  const bytes = tar(entry({ name: "." }, "page"));
  const tarPath = join(rootDir, "page.tar");
  await writeFile(tarPath, bytes);
  const recipe = (reference: string): Recipe => ({
    reference,
    from: "scratch",
    packages: [],
    files: [{ destination: "/page", digest: sha256(bytes), tarPath }],
    env: {},
    fresh: false,
  });
  const built = await Promise.all(
    Array.from({ length: 8 }, (_, at) => store.build(recipe(`localhost/x/site${at % 2}`), call)),
  );
  assert.equal(new Set(built.map(({ digest }) => digest)).size, 1);
  assert.equal((await store.list(call)).length, 1);
  assert.deepEqual((await store.find("localhost/x/site0", call))?.references, [
    "localhost/x/site0:latest",
    "localhost/x/site1:latest",
  ]);
});
