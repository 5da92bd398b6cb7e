import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { backgroundCall, systemClock, withDeadline } from "../base/call.ts";
import { Content } from "./content/content.ts";
import { LayerStore } from "./layer-store.ts";
import type { FileSource } from "./layer/blob-source.ts";
import { LayerWorkers } from "./layer/layer-workers.ts";
import { entry, tar } from "./layer/tar-fixture.ts";
import { sampleLayer } from "./registry/sample-image-fixture.ts";

let dir = "";
let workers: LayerWorkers;
let store: LayerStore;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "croft-layers-"));
  workers = new LayerWorkers(systemClock, { maxWorkers: 4 });
  store = new LayerStore(await Content.open(dir), workers);
});
afterEach(async () => {
  await workers.close();
  rmSync(dir, { recursive: true });
});

const layer = sampleLayer(tar(entry({ name: "file" }, "content")));
const expected = { digest: layer.digest, diffId: layer.diffId, sizeBytes: layer.blob.length };

function good(): FileSource {
  writeFileSync(join(dir, "good"), layer.blob);
  return { kind: "file", path: join(dir, "good") };
}

test("nobody waits for a registry that was not asked", async () => {
  const hanging = createServer((_, response) => void response.writeHead(200).write("x"));
  await new Promise<void>((resolve) => hanging.listen(0, "127.0.0.1", resolve));
  try {
    const url = `http://127.0.0.1:${(hanging.address() as AddressInfo).port}/`;
    const drip = { kind: "http", url, headers: () => Promise.resolve({}) } as const;
    const controller = new AbortController();
    const call = { ...backgroundCall(), signal: controller.signal };
    const held = assert.rejects(store.ensure(expected, { origin: "evil", sources: [() => drip] }, call), {
      reason: "cancelled",
    });
    // Nor for one that says something else of the same layer.
    const other = { ...expected, sizeBytes: expected.sizeBytes + 1 };
    const lied = assert.rejects(store.ensure(other, { origin: "good", sources: [() => drip] }, call), {
      reason: "cancelled",
    });
    using within = withDeadline(backgroundCall(), 30_000, "wait for the layer");
    const stored = await store.ensure(expected, { origin: "good", sources: [good] }, within);
    assert.deepEqual(stored, expected);
    controller.abort();
    await Promise.all([held, lied]);
  } finally {
    hanging.close();
    hanging.closeAllConnections();
  }
});

test("who shared work that failed tries for itself, and those who wait share that", async () => {
  let tries = 0;
  const refused = (): FileSource => {
    tries += 1;
    return { kind: "file", path: join(dir, "none") };
  };
  const allowed = (): FileSource => {
    tries += 1;
    return good();
  };
  const offers = [refused, refused, allowed, allowed].map((source) => ({ origin: "one", sources: [source] }));
  const outcomes = await Promise.allSettled(offers.map((offer) => store.ensure(expected, offer, backgroundCall())));
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["rejected", "rejected", "fulfilled", "fulfilled"],
  );
  assert.equal(tries, 3);
  assert.deepEqual(readdirSync(join(dir, "image/tmp")), []);
});
