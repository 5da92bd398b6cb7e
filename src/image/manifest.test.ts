import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { type Fault, isFault } from "../base/fault.ts";
import { sha256 } from "../base/id.ts";
import { checkLayers, chooseManifest, mediaType, parseConfig, parseManifest, writeManifest } from "./manifest.ts";

const bytes = (value: unknown): Buffer => Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
const entry = (type: string, seed: string): object => ({ mediaType: type, digest: sha256(seed), size: seed.length });
const image = {
  schemaVersion: 2,
  mediaType: mediaType.manifest,
  config: entry(mediaType.config, "c"),
  layers: [entry(mediaType.layerGzip, "a"), entry(mediaType.layer, "b")],
};
const reasonOf = (action: () => unknown): string => {
  try {
    action();
    return "none";
  } catch (error) {
    return isFault(error) ? error.reason : String(error);
  }
};
const reading = (value: unknown, claimed?: string): string =>
  reasonOf(() => parseManifest(bytes(value), claimed, "image"));

test("what a stranger says is cut short in messages, and no terminal obeys it", () => {
  const odd = `\u001b[2J\u009b31m${"x".repeat(1000)}`;
  const documents = [
    { schemaVersion: 2, mediaType: odd },
    { schemaVersion: 2, manifests: [{ mediaType: odd, digest: sha256("x"), size: 1, platform: { os: odd } }] },
  ];
  for (const document of documents) {
    const read = (): unknown => {
      const parsed = parseManifest(Buffer.from(JSON.stringify(document)), undefined, "it");
      return parsed.kind === "index" && chooseManifest(parsed, { os: "linux", architecture: "amd64" }, "it");
    };
    assert.throws(read, (thrown: Fault) => {
      const said = `${thrown.message} ${thrown.hint}`;
      return said.length < 300 && !/\p{Cc}/u.test(said);
    });
  }
});

test("reads OCI's and docker's manifests and indexes", () => {
  const parsed = parseManifest(bytes(image), mediaType.manifest, "image");
  assert.equal(parsed.kind, "manifest");
  assert.deepEqual(parsed.kind === "manifest" && parsed.layers.map(({ digest }) => digest), [sha256("a"), sha256("b")]);
  const docker = { ...image, mediaType: mediaType.dockerManifest, config: entry(mediaType.dockerConfig, "c") };
  assert.equal(parseManifest(bytes(docker), mediaType.dockerManifest, "image").kind, "manifest");
  const index = {
    schemaVersion: 2,
    manifests: [{ ...entry(mediaType.manifest, "m"), platform: { os: "linux", architecture: "arm", variant: "v7" } }],
  };
  const list = parseManifest(bytes(index), "application/json", "image");
  assert.deepEqual(list.kind === "index" && list.manifests[0]?.platform, {
    os: "linux",
    architecture: "arm",
    variant: "v7",
  });
});

test("refuses what could be understood in two ways, and what is not an image, by its name", () => {
  assert.equal(reading({ ...image, manifests: [] }), "hostile");
  assert.equal(reading(image, mediaType.index), "corrupt");
  assert.equal(reading({ schemaVersion: 1, fsLayers: [] }), "unsupported");
  assert.equal(reading({ ...image, mediaType: "application/vnd.cncf.helm.config.v1+json" }), "unsupported");
  assert.equal(reading({ ...image, config: entry("application/vnd.wasm.config.v1+json", "c") }), "unsupported");
  assert.equal(reading({ ...image, layers: [entry("text/html", "a")] }), "unsupported");
  assert.equal(
    reading({ ...image, config: { ...entry(mediaType.config, "c"), digest: `sha512:${"0".repeat(128)}` } }),
    "unsupported",
  );
  assert.equal(
    reading({ ...image, layers: Array.from({ length: 401 }, () => entry(mediaType.layer, "a")) }),
    "unsupported",
  );
});

test("refuses damaged documents", () => {
  for (const value of [
    "",
    "<html>",
    "[]",
    "null",
    "2",
    {},
    { schemaVersion: 2 },
    { ...image, layers: {} },
    { ...image, layers: [null] },
    { ...image, layers: [{ ...entry(mediaType.layer, "a"), size: -1 }] },
    { ...image, layers: [{ ...entry(mediaType.layer, "a"), size: 1.5 }] },
    { ...image, layers: [{ ...entry(mediaType.layer, "a"), digest: "sha256:../../x" }] },
  ]) {
    assert.equal(reading(value), "corrupt", JSON.stringify(value));
  }
  assert.equal(reading(" ".repeat(4 * 2 ** 20 + 1)), "exhausted");
});

test("a configuration's empty and missing members are empty values", () => {
  const document = parseConfig(
    bytes({
      architecture: "amd64",
      os: "linux",
      created: "2026-01-02T03:04:05.678901234Z",
      config: { Cmd: null, Entrypoint: ["/a"], Env: ["A=1=2", "B", "A=3"], Volumes: { "/data": {} }, Labels: null },
      rootfs: { type: "layers", diff_ids: [sha256("d")] },
    }),
    "image",
  );
  assert.deepEqual(document.config, {
    entrypoint: ["/a"],
    command: [],
    env: { A: "3", B: "" },
    user: "",
    workdir: "",
    volumes: ["/data"],
    exposedPorts: [],
    labels: {},
    architecture: "amd64",
    os: "linux",
  });
  assert.equal(new Date(document.createdMs).toISOString(), "2026-01-02T03:04:05.678Z");
  const manifest = parseManifest(bytes(image), undefined, "image");
  assert.equal(manifest.kind, "manifest");
  if (manifest.kind === "manifest")
    assert.equal(
      reasonOf(() => checkLayers(manifest, document, "image")),
      "corrupt",
    );
});

test("a manifest that is written is read back alike", () => {
  const config = { mediaType: mediaType.config, digest: sha256("c"), sizeBytes: 1, urls: [] };
  const layers = ["a", "b"].map((seed) => ({
    mediaType: mediaType.layer,
    digest: sha256(seed),
    sizeBytes: 1,
    urls: [],
  }));
  const { bytes: written, digest } = writeManifest(config, layers);
  assert.equal(sha256(written), digest);
  assert.deepEqual(parseManifest(written, mediaType.manifest, "image"), {
    kind: "manifest",
    mediaType: mediaType.manifest,
    config,
    layers,
  });
});

test("whatever JSON a registry sends, the answer is a document or a Fault", () => {
  const json = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: "small" },
      fc.constantFrom<unknown>(null, 2, "linux", sha256("x"), true),
      fc.array(tie("value"), { maxLength: 3 }),
      tie("object"),
    ),
    object: fc.dictionary(
      fc.constantFrom(
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "digest",
        "size",
        "rootfs",
        "diff_ids",
        "Env",
        "__proto__",
        "platform",
      ),
      tie("value"),
    ),
  })).object;
  fc.assert(
    fc.property(json, (value) => {
      for (const action of [() => parseManifest(bytes(value), undefined, "x"), () => parseConfig(bytes(value), "x")]) {
        assert.ok(
          ["none", "corrupt", "unsupported", "hostile", "exhausted"].includes(reasonOf(action)),
          reasonOf(action),
        );
      }
    }),
    { numRuns: 1000 },
  );
});
