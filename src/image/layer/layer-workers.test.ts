import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import { backgroundCall, systemClock, withDeadline, type Progress } from "../../base/call.ts";
import { sha256 } from "../../base/id.ts";
import { run } from "../../host/process.ts";
import { LayerWorkers } from "./layer-workers.ts";
import { defaultLayerLimits } from "./limit.ts";
import { partialSuffix } from "./pending-file.ts";
import { entry, tar } from "./tar-fixture.ts";

let dir = "";
let workers: LayerWorkers;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "croft-workers-"));
  workers = new LayerWorkers(systemClock, { maxWorkers: 2 });
});
afterEach(async () => {
  await workers.close();
  rmSync(dir, { recursive: true });
});

function blobFile(name: string, bytes: Buffer): string {
  writeFileSync(join(dir, name), bytes);
  return join(dir, name);
}

test("more layers than workers are all unpacked, and agree with what was expected", async () => {
  const blobs = Array.from({ length: 5 }, (_, index) => gzipSync(tar(entry({ name: `${index}` }, `${index}`))));
  const all = blobs.map((blob, index) =>
    workers.ingest(
      { kind: "file", path: blobFile(`blob-${index}`, blob) },
      { targetPath: join(dir, `layer-${index}`) },
      { digest: sha256(blob), sizeBytes: blob.length },
      backgroundCall(),
    ),
  );
  const facts = await Promise.all(all);
  assert.deepEqual(
    facts.map(({ digest }) => digest),
    blobs.map((blob) => sha256(blob)),
  );
  assert.equal(readdirSync(dir).length, 10);
});

test("a part of a file is a layer too, as in an archive of images", async () => {
  const blob = tar(entry({}, "inner"));
  const path = blobFile("archive", Buffer.concat([Buffer.alloc(777, "x"), blob, Buffer.alloc(55, "y")]));
  const source = { kind: "file", path, offset: 777, sizeBytes: blob.length } as const;
  const facts = await workers.ingest(source, { targetPath: join(dir, "layer") }, {}, backgroundCall());
  assert.equal(facts.digest, sha256(blob));
});

test("a layer comes over HTTP with headers from this process, and progress is reported", async () => {
  const blob = tar(entry({}, Buffer.alloc(5 * 2 ** 20, "x")));
  const server = createServer((request, response) => {
    response.writeHead(request.headers.authorization === "Bearer t" ? 200 : 401).end(blob);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/blob`;
    const seen: Progress[] = [];
    const call = { ...backgroundCall(), report: (progress: Progress) => void seen.push(progress) };
    const source = { kind: "http", url, headers: () => Promise.resolve({ authorization: "Bearer t" }) } as const;
    const expected = { digest: sha256(blob), sizeBytes: blob.length };
    await workers.ingest(source, { targetPath: join(dir, "layer") }, expected, call);
    assert.ok(seen.length >= 4);
    assert.equal(seen.at(-1)?.total, blob.length);

    const refused = { ...source, headers: () => Promise.reject(new Error("no login")) };
    await assert.rejects(workers.ingest(refused, { targetPath: join(dir, "other") }, expected, call), /no login/);
    const anonymous = { ...source, headers: () => Promise.resolve({}) };
    await assert.rejects(workers.ingest(anonymous, { targetPath: join(dir, "other") }, expected, call), {
      name: "Fault",
      reason: "unauthenticated",
    });
    assert.deepEqual(readdirSync(dir), ["layer"]);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test("a Fault crosses processes whole", async () => {
  const path = blobFile("blob", tar(entry({ name: "../x" })));
  const attempt = workers.ingest({ kind: "file", path }, { targetPath: join(dir, "layer") }, {}, backgroundCall());
  await assert.rejects(attempt, { name: "Fault", reason: "hostile", detail: { entry: "../x" }, hint: /do not trust/ });
});

test("one target is written once at a time", async () => {
  const path = blobFile("blob", tar(entry({})));
  const options = { targetPath: join(dir, "layer") };
  const first = workers.ingest({ kind: "file", path }, options, {}, backgroundCall());
  await assert.rejects(workers.ingest({ kind: "file", path }, options, {}, backgroundCall()), { reason: "conflict" });
  await first;
});

test("cancelling, while running or waiting for a worker, leaves nothing", async () => {
  const hanging = createServer((_, response) => void response.writeHead(200).write(Buffer.alloc(2 ** 21)));
  await new Promise<void>((resolve) => hanging.listen(0, "127.0.0.1", resolve));
  try {
    const url = `http://127.0.0.1:${(hanging.address() as AddressInfo).port}/`;
    const source = { kind: "http", url, headers: () => Promise.resolve({}) } as const;
    const controller = new AbortController();
    const begun = Promise.withResolvers<void>();
    const call = { ...backgroundCall(), signal: controller.signal, report: () => begun.resolve() };
    const all = ["a", "b", "waiting"].map((name) =>
      assert.rejects(workers.ingest(source, { targetPath: join(dir, name) }, {}, call), {
        name: "Fault",
        reason: "cancelled",
      }),
    );
    await begun.promise;
    controller.abort();
    await Promise.all(all);
    assert.deepEqual(readdirSync(dir), []);
  } finally {
    hanging.close();
    hanging.closeAllConnections();
  }
});

test("a registry that holds all workers holds up nobody else", async () => {
  const hanging = createServer((_, response) => void response.writeHead(200).write(Buffer.alloc(2 ** 21)));
  await new Promise<void>((resolve) => hanging.listen(0, "127.0.0.1", resolve));
  try {
    const url = `http://127.0.0.1:${(hanging.address() as AddressInfo).port}/`;
    const source = { kind: "http", url, headers: () => Promise.resolve({}) } as const;
    const controller = new AbortController();
    const call = { ...backgroundCall(), signal: controller.signal };
    const all = Array.from({ length: 5 }, (_, at) =>
      assert.rejects(workers.ingest(source, { targetPath: join(dir, `${at}`) }, {}, call, { origin: "evil" }), {
        reason: "cancelled",
      }),
    );
    using within = withDeadline(backgroundCall(), 30_000, "get a worker");
    for (const [at, origin] of ["good", undefined, "good"].entries()) {
      const path = blobFile(`blob-${at}`, tar(entry({ name: `${at}` })));
      const terms = origin === undefined ? {} : { origin };
      await workers.ingest({ kind: "file", path }, { targetPath: join(dir, `layer-${at}`) }, {}, within, terms);
    }
    controller.abort();
    await Promise.all(all);
  } finally {
    hanging.close();
    hanging.closeAllConnections();
  }
});

test("a deadline ends waiting for a fifo that nobody writes, and is told as such", async () => {
  const path = join(dir, "fifo");
  await run(["mkfifo", path], {}, backgroundCall());
  using call = withDeadline(backgroundCall(), 50, "wait for a layer");
  const attempt = workers.ingest({ kind: "file", path }, { targetPath: join(dir, "layer") }, {}, call);
  await assert.rejects(attempt, { name: "Fault", reason: "timeout", message: /wait for a layer/ });
  assert.deepEqual(readdirSync(dir), ["fifo"]);
});

test("closing in the middle leaves nothing, and refuses what comes after", async () => {
  const hanging = createServer((_, response) => void response.writeHead(200).write(Buffer.alloc(2 ** 21)));
  await new Promise<void>((resolve) => hanging.listen(0, "127.0.0.1", resolve));
  try {
    const url = `http://127.0.0.1:${(hanging.address() as AddressInfo).port}/`;
    const source = { kind: "http", url, headers: () => Promise.resolve({}) } as const;
    const begun = Promise.withResolvers<void>();
    const call = { ...backgroundCall(), report: () => begun.resolve() };
    const outcome = assert.rejects(workers.ingest(source, { targetPath: join(dir, "a") }, {}, call), {
      reason: "cancelled",
    });
    await begun.promise;
    await workers.close();
    await outcome;
    assert.deepEqual(readdirSync(dir), []);
    await assert.rejects(workers.ingest(source, { targetPath: join(dir, "a") }, {}, call), { reason: "unavailable" });
  } finally {
    hanging.close();
    hanging.closeAllConnections();
  }
});

test("workers end with the daemon, even when it is killed", async () => {
  const ended = Promise.withResolvers<void>();
  const hanging = createServer((request, response) => {
    request.socket.once("close", () => ended.resolve());
    response.writeHead(200).write(Buffer.alloc(2 ** 21));
  });
  await new Promise<void>((resolve) => hanging.listen(0, "127.0.0.1", resolve));
  try {
    const { href } = new URL(".", import.meta.url);
    const daemon = `
      import { LayerWorkers } from "${href}layer-workers.ts";
      import { backgroundCall, systemClock } from "${href}../../base/call.ts";
      const url = "http://127.0.0.1:${(hanging.address() as AddressInfo).port}/";
      const source = { kind: "http", url, headers: () => Promise.resolve({}) };
      const call = { ...backgroundCall(), report: () => process.kill(process.pid, "SIGKILL") };
      await new LayerWorkers(systemClock).ingest(source, { targetPath: ${JSON.stringify(join(dir, "layer"))} }, {}, call);
    `;
    const argv = [process.execPath, "--input-type=module", "--eval", daemon];
    await assert.rejects(run(argv, {}, backgroundCall()), { detail: { signal: "SIGKILL" } });
    await ended.promise;
    assert.deepEqual(
      readdirSync(dir).filter((name) => !name.endsWith(partialSuffix)),
      [],
    );
  } finally {
    hanging.close();
    hanging.closeAllConnections();
  }
});

test("a layer whose names fill the memory ends its worker and nothing else", async () => {
  // Limits that admit anything, so that only the worker's own memory is left to stop it.
  const limits = { ...defaultLayerLimits, maxEntries: 1e9, maxNameBytes: 1e12, maxRatio: 1e9, maxDepth: 2000 };
  const small = new LayerWorkers(systemClock, { maxWorkers: 1, maxHeapMiB: 16 });
  try {
    const directories = Array.from({ length: 150_000 }, (_, index) => entry({ name: `${index}`, type: "5" }));
    const blob = gzipSync(Buffer.concat(directories));
    const path = blobFile("blob", blob);
    const attempt = small.ingest({ kind: "file", path }, { targetPath: join(dir, "layer") }, {}, backgroundCall(), {
      limits,
    });
    await assert.rejects(attempt, { name: "Fault", reason: "exhausted", message: /memory/ });
    assert.deepEqual(readdirSync(dir), ["blob"]);
    const good = blobFile("good", tar(entry({}, "x")));
    await small.ingest({ kind: "file", path: good }, { targetPath: join(dir, "layer") }, {}, backgroundCall());
    assert.ok(readFileSync(join(dir, "layer")).length > 0);
  } finally {
    await small.close();
  }
});
