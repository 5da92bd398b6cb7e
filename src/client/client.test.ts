import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isFault, type Fault } from "../base/fault.ts";
import { connect, type Client } from "./client.ts";

/** A daemon that answers as `answer` says, and a client of it. */
async function daemon(
  answer: (request: IncomingMessage, response: ServerResponse) => void | Promise<void>,
): Promise<{ readonly client: Client } & AsyncDisposable> {
  const folder = mkdtempSync(join(tmpdir(), "croft-client-"));
  const socketPath = join(folder, "croft.sock");
  const server = createServer((request, response) => void answer(request, response));
  server.listen(socketPath);
  await once(server, "listening");
  return {
    client: connect({ kind: "unix", socketPath }, { user: "Zoë" }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(folder, { recursive: true });
    },
  };
}

async function faultOf(work: Promise<unknown>): Promise<Fault> {
  try {
    await work;
  } catch (thrown) {
    if (isFault(thrown)) return thrown;
    throw thrown;
  }
  return assert.fail("it went well");
}

test("a request's fields go into the path, the query or the body, as the route says", async () => {
  const asked: string[] = [];
  await using served = await daemon(async (request, response) => {
    const body = Buffer.concat(await Array.fromAsync(request as AsyncIterable<Buffer>)).toString();
    asked.push(`${request.method} ${request.url} ${body}`);
    assert.equal(request.headers["x-croft-user"], "Zo%C3%AB");
    response.end("{}");
  });
  const { client } = served;
  await client.instances.list({ stack: "a b", all: true });
  await client.instances.get({ instance: "shop/web-1" });
  await client.images.tag({ image: "nginx:1.27", reference: "site:1" });
  await Array.fromAsync(client.events.watch({ kinds: ["instance.", "image."], after: 7 }));
  assert.deepEqual(asked, [
    "GET /v1/instances?stack=a+b&all=true ",
    "GET /v1/instances/shop%2Fweb-1 ",
    'POST /v1/images/nginx%3A1.27:tag {"reference":"site:1"}',
    "GET /v1/events?kinds=instance.&kinds=image.&after=7 ",
  ]);
});

test("a refusal becomes the Fault that it was", async () => {
  await using served = await daemon((_, response) => {
    const error = { code: 5, reason: "not-found", message: "no web", hint: "look", detail: { near: "wab" } };
    response.writeHead(404).end(JSON.stringify({ error }));
  });
  const fault = await faultOf(served.client.instances.get({ instance: "web" }));
  assert.deepEqual(
    [fault.reason, fault.message, fault.hint, fault.detail],
    ["not-found", "no web", "look", { near: "wab" }],
  );
});

test("what came before an error of a stream is heard, then the error", async () => {
  await using served = await daemon((_, response) => {
    response.end(
      '{"result":{"sequence":1}}\n{"error":{"reason":"exhausted","message":"too old","hint":"","detail":{}}}\n',
    );
  });
  const heard: number[] = [];
  const reading = (async () => {
    for await (const { sequence } of served.client.events.watch()) heard.push(sequence);
  })();
  assert.equal((await faultOf(reading)).reason, "exhausted");
  assert.deepEqual(heard, [1]);
});

test("a stream that is cut off is not taken for its end", async () => {
  await using served = await daemon((_, response) => {
    response.write('{"result":{"sequence":1}}\n', () => response.destroy());
  });
  const fault = await faultOf(Array.fromAsync(served.client.events.watch()));
  assert.equal(fault.reason, "unavailable");
  assert.match(fault.message, /connection to the daemon was lost/);
});

test("aborting ends a call that waits, before and after its answer began", async () => {
  for (const begun of [false, true]) {
    await using served = await daemon((_, response) => {
      if (begun) response.write('{"result":{"sequence":1}}\n');
    });
    const abort = new AbortController();
    const events = served.client.events.watch({}, { signal: abort.signal })[Symbol.asyncIterator]();
    if (begun) await events.next();
    const next = events.next();
    setImmediate(() => abort.abort());
    assert.equal((await faultOf(next)).reason, "cancelled");
  }
});

test("both sides of a duplex speak when they like", async () => {
  await using served = await daemon(async (request, response) => {
    response.writeHead(200);
    for await (const chunk of request) response.write(`{"result":{"exit":${(chunk as Buffer).length}}}\n`);
    response.end();
  });
  const duplex = served.client.instances.exec();
  await duplex.send({ input: { end: true } });
  const answers = duplex[Symbol.asyncIterator]();
  assert.deepEqual((await answers.next()).value, { exit: '{"input":{"end":true}}\n'.length });
  duplex.end();
  assert.equal((await answers.next()).done, true);
  await duplex.send({ input: { end: true } });
});

test("an upload that is refused early stops, and tells why", async () => {
  await using served = await daemon((_, response) => {
    response.writeHead(429).end('{"error":{"reason":"exhausted","message":"full","hint":"","detail":{}}}');
  });
  let sent = 0;
  const endless = async function* () {
    for (;;) {
      sent += 1;
      yield Buffer.alloc(65_536);
    }
  };
  const fault = await faultOf(served.client.stacks.uploadFiles(endless()));
  assert.equal(fault.reason, "exhausted");
  assert.ok(sent > 0);
});

test("no daemon, or something else at its place, is said as such", async () => {
  const nobody = connect({ kind: "unix", socketPath: "/nonexistent/croft.sock" });
  const absent = await faultOf(nobody.host.get());
  assert.equal(absent.reason, "unavailable");
  assert.match(absent.message, /^the Croft daemon does not answer at \/nonexistent\/croft\.sock/);
  assert.match(absent.hint ?? "", /npm start/);
  await using served = await daemon((_, response) => void response.writeHead(502).end("<html>"));
  assert.match((await faultOf(served.client.host.get())).message, /HTTP 502\) is not Croft/);
});
