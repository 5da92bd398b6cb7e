import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import * as fc from "fast-check";
import { type Call, backgroundCall, systemClock } from "../../base/call.ts";
import { type Reason, isFault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import { sha256 } from "../../base/id.ts";
import { ImageStore } from "../images.ts";
import { entry, tar } from "../layer/tar-fixture.ts";
import { mediaType } from "../manifest.ts";
import { type Lie, LyingRegistry, sendManifest } from "./lying-registry-fixture.ts";
import { type SampleImage, imageOf, indexOf, sampleImage, sampleLayer } from "./sample-image-fixture.ts";

/** What registries do wrong, by accident or on purpose; and that nothing of it stays. */

/** Pauses take no time, and half a minute takes 30 ms. */
const call: Call = {
  ...backgroundCall(),
  clock: {
    ...systemClock,
    sleep: () => Promise.resolve(),
    after: (delayMs, action) => systemClock.after(delayMs / 1000, action),
  },
};
const patient: Call = { ...call, clock: { ...systemClock, sleep: () => Promise.resolve() } };

let rootDir = "";
before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "croft-pull-"));
});
after(async () => await rm(rootDir, { recursive: true, force: true }));

async function freshStore(): Promise<{ store: ImageStore; imageDir: string }> {
  const home = homeBeneath(await mkdtemp(join(rootDir, "home-")));
  return { store: await ImageStore.open(home, systemClock), imageDir: join(home.libDir, "image") };
}

/** Files of the store apart from what was complete and right by itself. */
function filesOf(imageDir: string, ...directories: readonly string[]): readonly string[] {
  return directories.flatMap((directory) => readdirSync(join(imageDir, directory)));
}

async function refused(
  image: SampleImage,
  lie: Lie,
  reason: Reason,
  message: RegExp,
  within = patient,
): Promise<LyingRegistry> {
  await using registry = await LyingRegistry.start(image, lie);
  const { store, imageDir } = await freshStore();
  await using _ = store;
  await assert.rejects(store.pull(registry.reference, {}, within), (error) => {
    assert.ok(isFault(error, reason), `${String(error)} is not ${reason}`);
    assert.match(error.message, message);
    return true;
  });
  assert.equal(await store.find(registry.reference, call), undefined);
  assert.deepEqual(filesOf(imageDir, "tmp", "manifest", "name"), []);
  return registry;
}

async function accepted(image: SampleImage, lie: Lie): Promise<LyingRegistry> {
  await using registry = await LyingRegistry.start(image, lie);
  const { store, imageDir } = await freshStore();
  await using _ = store;
  const pulled = await store.pull(registry.reference, {}, patient);
  assert.equal(pulled.digest, image.digest);
  assert.equal(await store.find(registry.reference, call), pulled);
  assert.deepEqual(
    pulled.layers.map(({ digest }) => digest),
    image.layers.map(({ diffId }) => diffId),
  );
  for (const { digest, blob } of image.layers) {
    assert.ok(readFileSync(join(imageDir, "blob", digest.slice(7))).equals(blob));
  }
  assert.deepEqual(filesOf(imageDir, "tmp"), []);
  return registry;
}

/** Lies about manifests only. */
function atManifests(answer: (response: ServerResponse) => void): Lie {
  return ({ path }, response) => {
    if (!path.includes("/manifests/")) return false;
    answer(response);
    return true;
  };
}

const isBlob = (image: SampleImage, path: string, position = 0): boolean =>
  path.endsWith(image.layers[position]?.digest ?? "?");
const large = randomBytes(200_000).toString("base64");
const image = sampleImage([large, "second"]);

test("an honest registry gives the image, and the second pull asks only for the manifest", async () => {
  await using registry = await LyingRegistry.start(image);
  const { store } = await freshStore();
  await using _ = store;
  const first = await store.pull(registry.reference, {}, patient);
  assert.deepEqual(first.references, [registry.reference]);
  assert.deepEqual(first.config.command, ["/file-0"]);
  const before = registry.asked.length;
  assert.equal(await store.pull(registry.reference, {}, patient), first);
  assert.deepEqual(
    registry.asked.slice(before).map(({ path }) => path),
    ["/v2/sample/image/manifests/1"],
  );
});

test("the same pull asked for ten times at once is one pull", async () => {
  await using registry = await LyingRegistry.start(image);
  const { store } = await freshStore();
  await using _ = store;
  const pulled = await Promise.all(Array.from({ length: 10 }, () => store.pull(registry.reference, {}, patient)));
  assert.equal(new Set(pulled).size, 1);
  assert.equal(registry.asked.length, 4);
});

test("a manifest that is not what its digest says is refused", async () => {
  await using registry = await LyingRegistry.start(image, ({ path }, response) => {
    if (!path.includes("/manifests/")) return false;
    sendManifest(response, sampleImage(["other"]).manifest);
    return true;
  });
  const { store } = await freshStore();
  await using _ = store;
  const reference = registry.reference.replace(/:1$/, `@${image.digest}`);
  await assert.rejects(store.pull(reference, {}, patient), (error) => isFault(error, "corrupt"));
});

test("a digest in the header that the manifest does not have is refused", async () => {
  const said = sha256("else");
  const lie: Lie = ({ path }, response) => {
    if (path.includes("/manifests/")) response.setHeader("docker-content-digest", said);
    return false;
  };
  await refused(image, lie, "corrupt", /digest/);
});

const replaced =
  (matches: (path: string) => boolean, bytes: Buffer): Lie =>
  ({ path }, response) => {
    if (!matches(path)) return false;
    response.writeHead(200, { "content-length": bytes.length });
    response.end(bytes);
    return true;
  };

test("a configuration or layer that is not what its digest says is refused", async () => {
  const other = Buffer.from(image.config.toString().replace("A=1", "A=2"));
  await refused(
    image,
    replaced((path) => path.endsWith(sha256(image.config)), other),
    "corrupt",
    /digest/,
  );
  const [layer] = image.layers;
  assert.ok(layer !== undefined);
  const flipped = Buffer.from(layer.blob);
  flipped[flipped.length >> 1] = (flipped[flipped.length >> 1] ?? 0) ^ 1;
  await refused(
    image,
    replaced((path) => isBlob(image, path), flipped),
    "corrupt",
    new RegExp(layer.digest),
  );
});

test("a layer that is longer or shorter than announced is refused", async () => {
  const [layer] = image.layers;
  assert.ok(layer !== undefined);
  const longer = Buffer.concat([layer.blob, Buffer.alloc(10)]);
  await refused(
    image,
    replaced((path) => isBlob(image, path), longer),
    "corrupt",
    /longer/,
  );
  const shorter = layer.blob.subarray(0, layer.blob.length - 10);
  await refused(
    image,
    replaced((path) => isBlob(image, path), shorter),
    "corrupt",
    /ends after|damaged/,
  );
});

test("a layer whose tar is not what the configuration says is refused", async () => {
  await refused(
    imageOf(image.layers.slice(0, 1), undefined, { diffId: sha256("x") }),
    () => false,
    "corrupt",
    /digest/,
  );
});

test("a configuration of another size than the manifest says is refused", async () => {
  const size = image.config.length;
  for (const said of [size - 1, size + 1]) {
    const manifest = Buffer.from(image.manifest.toString().replace(`"size":${size}`, `"size":${said}`));
    await refused(
      { ...image, manifest, digest: sha256(manifest) },
      () => false,
      said < size ? "exhausted" : "corrupt",
      /configuration|blob/,
    );
  }
});

test("an image that says that it is larger than the disk is refused before any of it is fetched", async () => {
  const registry = await refused(
    imageOf(image.layers, undefined, { sizeBytes: 2 ** 50 }),
    () => false,
    "exhausted",
    /needs 2048 TiB of disk/,
  );
  const layers = registry.asked.filter(({ path }) => image.layers.some((layer) => path.endsWith(layer.digest)));
  assert.deepEqual(layers, []);
});

test("a layer that climbs out of its tree is refused", async () => {
  const climbing = sampleLayer(tar(entry({ name: "../../escape" }, "x")));
  await refused(imageOf([climbing]), () => false, "hostile", /escape/);
});

test("connections that break at any byte are taken up where they broke", async () => {
  const [layer] = image.layers;
  assert.ok(layer !== undefined);
  const { blob } = layer;
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: blob.length - 1 }), fc.boolean(), async (cut, knowsRanges) => {
      let broken = false;
      const lie: Lie = ({ path }, response) => {
        if (!isBlob(image, path)) return false;
        if (broken && knowsRanges) return false;
        response.writeHead(200, { "content-length": blob.length });
        if (broken) response.end(blob);
        else response.write(blob.subarray(0, cut), () => response.destroy());
        broken = true;
        return true;
      };
      const registry = await accepted(image, lie);
      const asked = registry.asked.filter(({ path }) => isBlob(image, path));
      assert.equal(asked.length, 2);
      // What was on its way when the connection broke may be lost, never more.
      const resumed = Number(/^bytes=([0-9]+)-$/.exec(asked[1]?.headers.range ?? "bytes=0-")?.[1]);
      assert.ok(resumed <= cut, `${resumed} > ${cut}`);
    }),
    { numRuns: 8 },
  );
});

const busy = (response: ServerResponse): void => void response.writeHead(429, { "retry-after": "1" }).end();

test("a busy or broken server is asked again, but not for ever", async () => {
  let failures = 0;
  const failing =
    (limit: number, answer: (response: ServerResponse) => void): Lie =>
    ({ path }, response) => {
      if (!path.includes("/manifests/") || failures >= limit) return false;
      failures += 1;
      answer(response);
      return true;
    };
  await accepted(image, failing(3, busy));
  failures = 0;
  await accepted(
    image,
    failing(3, (response) => void response.destroy()),
  );
  failures = 0;
  await refused(
    image,
    failing(1000, (response) => void response.writeHead(503).end("<html>")),
    "unavailable",
    /503/,
  );
  assert.equal(failures, 5);
});

test("an error page that says 200 is no manifest", async () => {
  const page = Buffer.from("<html><body>Please log in</body></html>");
  const lie: Lie = ({ path }, response) => {
    if (!path.includes("/manifests/")) return false;
    sendManifest(response, page, "text/html; charset=utf-8");
    return true;
  };
  await refused(image, lie, "corrupt", /text\/html/);
});

test("a manifest with another type than its own is refused, one of a plain type is read", async () => {
  const typed =
    (type: string): Lie =>
    ({ path }, response) => {
      if (!path.includes("/manifests/")) return false;
      sendManifest(response, image.manifest, type);
      return true;
    };
  await refused(image, typed(mediaType.index), "corrupt", /calls itself/);
  await accepted(image, typed("application/json"));
  await accepted(image, typed("application/octet-stream"));
});

const drip = (response: ServerResponse): void => {
  if (!response.headersSent) response.writeHead(200, { "content-type": mediaType.manifest });
  const timer = setInterval(() => response.write(" "), 5);
  response.on("close", () => clearInterval(timer));
};

const flood = (response: ServerResponse): void => {
  response.writeHead(200, { "content-type": mediaType.manifest });
  const more = (error?: Error | null): void => void (error ?? response.write(Buffer.alloc(2 ** 20, " "), more));
  more();
};

test("a server that drips, says nothing or sends without end is given up", async () => {
  await refused(image, atManifests(drip), "timeout", /not done within/, call);
  await refused(
    image,
    atManifests(() => {}),
    "timeout",
    /nothing came/,
    call,
  );
  await refused(image, atManifests(flood), "exhausted", /larger/);
});

test("a server that drips while an image is pushed is given up too", async () => {
  await using registry = await LyingRegistry.start(image, ({ method }, response) => {
    if (method === "GET") return false;
    if (method === "HEAD") response.writeHead(404).end();
    else drip(response.writeHead(202, { location: "/upload" }));
    return true;
  });
  const { store } = await freshStore();
  await using _ = store;
  await store.pull(registry.reference, {}, patient);
  await store.tag(registry.reference, registry.reference.replace("sample/image", "other/place"), call);
  // It is never silent for long, so only a minute passes sooner here.
  const within: Call = {
    ...patient,
    clock: {
      ...patient.clock,
      after: (delayMs, action) => systemClock.after(delayMs < 60_000 ? delayMs : 100, action),
    },
  };
  const pushing = store.push(registry.reference.replace("sample/image", "other/place"), {}, within);
  await assert.rejects(pushing, (error) => isFault(error, "timeout") && /not done within/.test(error.message));
});

test("an index gives this machine's image; indexes without end are a trap", async () => {
  const foreign = sampleImage(["foreign"], { os: "linux", architecture: "riscv64" });
  const platform = JSON.parse(image.config.toString()) as { os: string; architecture: string };
  const index = indexOf([
    { image: foreign, platform: { os: "linux", architecture: "riscv64" } },
    { image, platform: { os: platform.os, architecture: platform.architecture } },
  ]);
  await accepted(image, ({ path }, response) => {
    if (!path.endsWith("/manifests/1")) return false;
    sendManifest(response, index, mediaType.index);
    return true;
  });
  const nested = (depth: number): Buffer =>
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: mediaType.index,
        manifests: [{ mediaType: mediaType.index, ...described(depth) }],
      }),
    );
  const described = (depth: number): object => {
    if (depth === 0) return { digest: sha256("end"), size: 3 };
    const inner = nested(depth - 1);
    return { digest: sha256(inner), size: inner.length };
  };
  const byDigest = new Map(Array.from({ length: 9 }, (_, depth) => [sha256(nested(depth)), nested(depth)] as const));
  const lie: Lie = ({ path }, response) => {
    if (!path.includes("/manifests/")) return false;
    const digest = path.slice(path.lastIndexOf("/") + 1) as ReturnType<typeof sha256>;
    sendManifest(response, byDigest.get(digest) ?? nested(8), mediaType.index);
    return true;
  };
  await refused(image, lie, "hostile", /deep/);
});

test("an image for another machine is refused unless its platform was asked for", async () => {
  const foreign = sampleImage(["foreign"], { os: "linux", architecture: "riscv64" });
  await refused(foreign, () => false, "unsupported", /riscv64/);
  await using registry = await LyingRegistry.start(foreign);
  const { store } = await freshStore();
  await using _ = store;
  const pulled = await store.pull(registry.reference, { platform: "linux/riscv64" }, patient);
  assert.equal(pulled.config.architecture, "riscv64");
});

test("what a registry does not have is not found, in its own words", async () => {
  const body = JSON.stringify({ errors: [{ code: "MANIFEST_UNKNOWN", message: "gone\u001b[2J" }] });
  const lie = atManifests((response) => void response.writeHead(404).end(body));
  await refused(image, lie, "not-found", /MANIFEST_UNKNOWN: gone \[2J/);
});

test("a pull that is cancelled leaves nothing, and one after it succeeds", async () => {
  const controller = new AbortController();
  let isSlow = true;
  await using registry = await LyingRegistry.start(image, ({ path }, response) => {
    if (!isSlow || !isBlob(image, path)) return false;
    response.writeHead(200, { "content-length": image.layers[0]?.blob.length });
    response.write(image.layers[0]?.blob.subarray(0, 1000), () => controller.abort());
    return true;
  });
  const { store, imageDir } = await freshStore();
  await using _ = store;
  const cancelled: Call = { ...patient, signal: controller.signal };
  await assert.rejects(store.pull(registry.reference, {}, cancelled), (error) => isFault(error, "cancelled"));
  isSlow = false;
  const pulled = await store.pull(registry.reference, {}, patient);
  assert.equal(pulled.digest, image.digest);
  assert.deepEqual(filesOf(imageDir, "tmp"), []);
});

test("images of this machine are never looked for elsewhere", async () => {
  const { store } = await freshStore();
  await using _ = store;
  await assert.rejects(store.pull("localhost/shop/site", {}, patient), (error) => {
    return isFault(error, "not-found") && /not fetched from a registry/.test(error.message);
  });
});
