import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createNetServer } from "node:net";
import { afterEach, test } from "node:test";
import { backgroundCall, systemClock, type Call } from "../../base/call.ts";
import { openHttpBlob } from "./http-blob.ts";

const blob = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7) & 0xff));
const servers: Server[] = [];
/** Pauses between attempts take no time here. */
const call: Call = { ...backgroundCall(), clock: { ...systemClock, sleep: () => Promise.resolve() } };

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function download(url: string, headers: Readonly<Record<string, string>> = {}, within = call): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  const source = { kind: "http", url, headers: () => Promise.resolve(headers) } as const;
  for await (const piece of openHttpBlob(source, within)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** Sends `count` bytes from `from` on, of a body announced as reaching to the end, then cuts the connection. */
function sendPart(response: ServerResponse, status: number, from: number, count: number): void {
  const range = status === 206 ? { "content-range": `bytes ${from}-${blob.length - 1}/${blob.length}` } : {};
  response.writeHead(status, { "content-length": blob.length - from, ...range });
  const part = blob.subarray(from, from + count);
  if (from + count >= blob.length) response.end(part);
  else response.write(part, () => response.destroy());
}

function rangeStart(request: IncomingMessage): number | undefined {
  const match = /^bytes=([0-9]+)-$/.exec(request.headers.range ?? "");
  return match === null ? undefined : Number(match[1]);
}

test("a connection that is lost in the middle goes on where it stopped", async () => {
  const starts: number[] = [];
  const url = await serve((request, response) => {
    const from = rangeStart(request);
    starts.push(from ?? 0);
    sendPart(response, from === undefined ? 200 : 206, from ?? 0, 70_000);
  });
  assert.ok((await download(url)).equals(blob));
  assert.ok(starts.length >= 5);
  assert.deepEqual(
    starts,
    [...new Set(starts)].sort((left, right) => left - right),
  );
});

test("a server that knows no ranges sends all again, and what is there already is skipped", async () => {
  let requests = 0;
  const url = await serve((_, response) => {
    requests += 1;
    sendPart(response, 200, 0, requests * 110_000);
  });
  assert.ok((await download(url)).equals(blob));
  assert.equal(requests, 3);
});

test("a range other than the one asked for is refused", async () => {
  let requests = 0;
  const url = await serve((_, response) => {
    requests += 1;
    if (requests === 1) sendPart(response, 200, 0, 100_000);
    else sendPart(response, 206, 5, blob.length);
  });
  await assert.rejects(download(url), { reason: "corrupt", message: /the server sent "bytes 5-/ });
});

test("headers are asked for before each connection, so that a token may be renewed", async () => {
  const seen: unknown[] = [];
  const url = await serve((request, response) => {
    seen.push(request.headers.authorization);
    sendPart(response, seen.length === 1 ? 200 : 206, rangeStart(request) ?? 0, seen.length === 1 ? 1000 : blob.length);
  });
  let asked = 0;
  const headers = (): Promise<Record<string, string>> => Promise.resolve({ authorization: `Bearer ${(asked += 1)}` });
  for await (const piece of openHttpBlob({ kind: "http", url, headers }, call)) assert.ok(piece.length > 0);
  assert.deepEqual(seen, ["Bearer 1", "Bearer 2"]);
});

test("redirects are followed, and credentials stay with the first origin", async () => {
  let seen: unknown = "nothing";
  const store = await serve((request, response) => {
    seen = request.headers.authorization;
    response.end(blob);
  });
  const registry = await serve((request, response) => {
    if (request.url === "/here") response.writeHead(302, { location: `${store}/there` }).end();
    else response.writeHead(307, { location: "/here" }).end();
  });
  assert.ok((await download(`${registry}/first`, { Authorization: "Bearer secret" })).equals(blob));
  assert.equal(seen, undefined);
  const circle = await serve((_, response) => void response.writeHead(302, { location: "/again" }).end());
  await assert.rejects(download(circle), { reason: "failed", message: /redirected more than/ });
});

test("what the server says decides the reason; only what may pass is tried again", async () => {
  for (const [status, reason, requests] of [
    [401, "unauthenticated", 1],
    [403, "forbidden", 1],
    [404, "not-found", 1],
    [400, "failed", 1],
    [503, "unavailable", 5],
    [429, "unavailable", 5],
  ] as const) {
    let count = 0;
    const url = await serve((_, response) => {
      count += 1;
      response.writeHead(status).end();
    });
    await assert.rejects(download(url), { name: "Fault", reason });
    assert.equal(count, requests, `requests at ${status}`);
  }
  await assert.rejects(download("http://127.0.0.1:1/"), { reason: "unavailable" });
  await assert.rejects(download("file:///etc/passwd"), { reason: "invalid" });
});

test("a server that only drips is given up, one that is slow is not", async () => {
  let nowMs = 0;
  const clock = { ...call.clock, monotonicMs: () => nowMs };
  const trickle = async (response: ServerResponse, from: number, count: number, everyMs: number): Promise<void> => {
    for (let at = from; at < blob.length && !response.destroyed; at += count) {
      nowMs += everyMs;
      response.write(blob.subarray(at, at + count));
      await systemClock.sleep(2);
    }
    response.end();
  };
  let requests = 0;
  const serving = (count: number, everyMs: number): Promise<string> => {
    requests = 0;
    return serve((request, response) => {
      requests += 1;
      const from = rangeStart(request) ?? 0;
      const range = { "content-range": `bytes ${from}-${blob.length - 1}/${blob.length}` };
      response.writeHead(from === 0 ? 200 : 206, { "content-length": blob.length - from, ...range });
      void trickle(response, from, count, everyMs);
    });
  };
  const dripping = download(await serving(1, 59_000), {}, { ...call, clock });
  await assert.rejects(dripping, { reason: "unavailable", message: /only [0-9]+ bytes came in [0-9]+ s, 5 times/ });
  assert.equal(requests, 5);
  // As a modem of 14.4 kbit/s.
  assert.ok((await download(await serving(9000, 5000), {}, { ...call, clock })).equals(blob));
  assert.equal(requests, 1);
});

test("a byte for each connection is not enough to go on", async () => {
  let requests = 0;
  const url = await serve((request, response) => {
    requests += 1;
    const from = rangeStart(request);
    sendPart(response, from === undefined ? 200 : 206, from ?? 0, 1);
  });
  await assert.rejects(download(url), { reason: "unavailable" });
  assert.equal(requests, 5);
});

test("an answer whose head never ends is given up", async () => {
  let connections = 0;
  const server = createNetServer((socket) => {
    connections += 1;
    socket.on("error", () => {});
    socket.write("HTTP/1.1 200 OK\r\n");
    const dripping = setInterval(() => socket.write("x"), 5);
    socket.once("close", () => clearInterval(dripping));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const clock = { ...call.clock, after: (ms: number, action: () => void) => systemClock.after(ms / 1000, action) };
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await assert.rejects(download(url, {}, { ...call, clock }), { reason: "unavailable", message: /silent/ });
    assert.equal(connections, 5);
  } finally {
    server.close();
  }
});

test("cancelling ends a download that hangs", async () => {
  const controller = new AbortController();
  const url = await serve((_, response) => {
    response.writeHead(200, { "content-length": blob.length });
    response.write(blob.subarray(0, 10), () => controller.abort());
  });
  await assert.rejects(download(url, {}, { ...call, signal: controller.signal }), { reason: "cancelled" });
});
