import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { backgroundCall, systemClock } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import { run, stream } from "../../host/process.ts";
import { ImageStore } from "../images.ts";
import { entry, tar } from "../layer/tar-fixture.ts";
import { CredentialStore } from "./credential.ts";
import { DockerRegistry } from "./docker-registry-fixture.ts";
import { imageOf, sampleImage, sampleLayer } from "./sample-image-fixture.ts";

/** Against the registry that Debian packages, on the real file system. */

const call = backgroundCall();
let rootDir = "";
before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "croft-registry-test-"));
});
after(async () => await rm(rootDir, { recursive: true, force: true }));

async function freshStore(home = homeBeneath(join(rootDir, randomBytes(4).toString("hex")))): Promise<ImageStore> {
  return await ImageStore.open(home, systemClock, new CredentialStore(home.etcDir, join(home.etcDir, "docker")));
}

/** An archive in docker's old layout, whose layers are plain tars. */
function archiveOf(image: ReturnType<typeof sampleImage>, name: string): Readable {
  const list = [{ Config: "config.json", RepoTags: [name], Layers: image.layers.map((_, at) => `${at}/layer.tar`) }];
  const layers = image.layers.map((layer, at) => entry({ name: `${at}/layer.tar` }, layer.tar));
  const config = entry({ name: "config.json" }, image.config);
  return Readable.from([tar(...layers, config, entry({ name: "manifest.json" }, JSON.stringify(list)))]);
}

test("an image goes to a registry, comes from it, and through archives, and stays the same image", async () => {
  await using registry = await DockerRegistry.start();
  await using first = await freshStore();
  const name = `${registry.domain}/team/site:1`;
  const [loaded] = await first.load(archiveOf(sampleImage([randomBytes(300_000).toString("hex"), "two"]), name), call);
  assert.ok(loaded !== undefined);
  assert.equal(await first.push(name, {}, call), loaded.digest);
  // Everything is there already, and another repository takes what the first one has.
  const topics: string[] = [];
  const watched = { ...call, report: ({ state }: { state: string }) => topics.push(state) };
  await first.push(name, {}, watched);
  assert.deepEqual([...new Set(topics)], ["there already"]);
  await first.tag(name, `${registry.domain}/other/site:2`, call);
  topics.length = 0;
  await first.push(`${registry.domain}/other/site:2`, {}, watched);
  assert.equal(topics.includes("uploading"), false);

  await using second = await freshStore();
  for (const reference of [name, `${registry.domain}/other/site:2`, `${registry.domain}/team/site@${loaded.digest}`]) {
    const pulled = await second.pull(reference, {}, call);
    assert.equal(pulled.digest, loaded.digest);
    assert.deepEqual(
      pulled.layers.map(({ digest, sizeBytes }) => ({ digest, sizeBytes })),
      loaded.layers.map(({ digest, sizeBytes }) => ({ digest, sizeBytes })),
    );
  }
  for (const format of ["oci", "docker"] as const) {
    await using third = await freshStore();
    const [again] = await third.load(second.save([name], format, call), call);
    assert.equal(again?.digest, loaded.digest);
    await third.tag(name, `${registry.domain}/third/${format}:1`, call);
    assert.equal(await third.push(`${registry.domain}/third/${format}:1`, {}, call), loaded.digest);
  }
});

test("a registry that wants a password gets it from a login", async () => {
  // The password of this published bcrypt vector is U*U.
  await using registry = await DockerRegistry.start("ada:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
  await using store = await freshStore();
  const name = `${registry.domain}/private/site:1`;
  await store.load(archiveOf(sampleImage(["x"]), name), call);
  const ada = { username: "ada", password: "U*U" };
  await assert.rejects(store.push(name, {}, call), (error) => isFault(error, "unauthenticated"));
  await assert.rejects(store.login(registry.domain, { ...ada, password: "wrong" }, call), (error) =>
    isFault(error, "unauthenticated"),
  );
  await store.push(name, { credentials: ada }, call);
  await store.login(registry.domain, ada, call);
  await store.push(name, {}, call);
  await store.pull(name, {}, call);
  await store.logout(registry.domain, call);
  await assert.rejects(store.pull(name, {}, call), (error) => isFault(error, "unauthenticated"));
});

test("a full disk ends a pull as exhausted, and the disk is empty again", async () => {
  await using registry = await DockerRegistry.start();
  await using source = await freshStore();
  const name = `${registry.domain}/large:1`;
  const layers = [1, 12].map((size, at) =>
    sampleLayer(tar(entry({ name: `random-${at}` }, randomBytes(size * 2 ** 20)))),
  );
  await source.load(archiveOf(imageOf(layers), name), call);
  await source.push(name, {}, call);
  const home = homeBeneath(join(rootDir, "full"));
  await mkdir(home.libDir, { recursive: true });
  await run(["mount", "-t", "tmpfs", "-o", "size=16m", "croft-test", home.libDir], {}, call);
  try {
    await using store = await freshStore(home);
    await assert.rejects(store.pull(name, {}, call), (error) => {
      assert.ok(isFault(error, "exhausted"), String(error));
      return true;
    });
    assert.equal(await store.find(name, call), undefined);
    const left = ["tmp", "blob", "layer", "manifest", "name"].flatMap((part) =>
      readdirSync(join(home.libDir, "image", part)),
    );
    assert.deepEqual(left, []);
    // What fits is still possible.
    await store.load(archiveOf(sampleImage(["small"]), "small:1"), call);
    assert.ok(await store.find("small:1", call));
  } finally {
    await run(["umount", home.libDir], {}, call);
  }
});

test("a daemon killed at any moment of a pull leaves nothing but complete images", async () => {
  await using registry = await DockerRegistry.start();
  await using source = await freshStore();
  const name = `${registry.domain}/killed:1`;
  const image = sampleImage(Array.from({ length: 4 }, () => randomBytes(400_000).toString("hex")));
  const [expected] = await source.load(archiveOf(image, name), call);
  await source.push(name, {}, call);
  const home = homeBeneath(join(rootDir, "killed"));
  const program = `
    import { backgroundCall, systemClock } from "${new URL("../../base/call.ts", import.meta.url).href}";
    import { homeBeneath } from "${new URL("../../base/home.ts", import.meta.url).href}";
    import { ImageStore } from "${new URL("../images.ts", import.meta.url).href}";
    const store = await ImageStore.open(homeBeneath(process.argv[1]), systemClock);
    process.stdout.write("ready");
    await store.pull(process.argv[2], {}, backgroundCall());
    await store.remove(process.argv[2], backgroundCall());
    await store.collect([], backgroundCall());
    process.stdout.write("done");
  `;
  const rounds = 12;
  let finished = 0;
  for (let round = 0; round < rounds; round += 1) {
    const argv = [process.execPath, "--disable-warning=ExperimentalWarning", "--input-type=module", "-e", program];
    const child = stream([...argv, join(rootDir, "killed"), name], {}, call);
    child.stderr.resume();
    await new Promise<void>((resolve) => {
      child.stdout.once("data", () => resolve());
      void child.exited.then(() => resolve());
    });
    child.stdout.on("data", (data: Buffer) => (finished += data.toString().includes("done") ? 1 : 0));
    await systemClock.sleep(round * 50);
    child.kill("SIGKILL");
    await child.exited;
    await using store = await freshStore(home);
    assert.deepEqual(readdirSync(join(home.libDir, "image", "tmp")), []);
    const found = await store.find(name, call);
    if (found !== undefined) assert.deepEqual(found.layers.length, expected?.layers.length);
    const pulled = await store.pull(name, {}, call);
    assert.equal(pulled.digest, expected?.digest);
    // Every layer is whole: the kernel's own checker reads all of it.
    for (const layer of pulled.layers) await run(["fsck.erofs", layer.path], {}, call);
    await store.remove(name, call);
    await store.collect([], call);
    const left = ["blob", "layer", "manifest", "name"].flatMap((part) => readdirSync(join(home.libDir, "image", part)));
    assert.deepEqual(left, []);
  }
  assert.ok(finished < rounds, "no round was interrupted");
});
