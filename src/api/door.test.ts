import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { createClient } from "@connectrpc/connect";
import type { OperationId } from "../base/id.ts";
import { systemClock } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { Wake } from "../base/wake.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { openApi } from "./door.fixture.ts";
import { listen } from "./listen.ts";
import { exampleNeeds, thenMs } from "./needs.fixture.ts";
import { exchange, grpcTransport } from "./speak.fixture.ts";
import { createToken } from "./token.ts";

test("an unknown route is a 404 that names near ones; a wrong verb a 405 that names the right one", async () => {
  await using api = await openApi();
  const unknown = await exchange(api.unix, "GET", "/v1/instance", undefined);
  assert.equal(unknown.status, 404);
  assert.match(unknown.text, /did you mean GET \/v1\/instances/);
  const wrong = await exchange(api.unix, "DELETE", "/v1/instances/web-1", undefined);
  assert.equal(wrong.status, 405);
  assert.equal(wrong.headers["allow"], "GET");
  assert.equal((JSON.parse(wrong.text) as { error: { reason: string } }).error.reason, "unsupported");
});

test("a body that is not JSON, has unknown fields, repeats the path or is too large is refused by name", async () => {
  await using api = await openApi();
  const refused = async (path: string, body: string): Promise<string> => {
    const { status, text } = await exchange(api.unix, "POST", path, body);
    return `${status} ${text}`;
  };
  assert.match(await refused("/v1/stacks:check", "{"), /^400 .*not JSON/);
  assert.match(await refused("/v1/stacks:check", "[]"), /^400 .*JSON object/);
  assert.match(await refused("/v1/stacks:check", '{"sauce":{}}'), /^400 .*sauce/);
  assert.match(await refused("/v1/instances/web-1:stop", '{"instance":"web-2"}'), /^400 .*in the path/);
  assert.match(await refused("/v1/instances/web-1:stop?grace=5s", ""), /^400 .*query/);
  assert.match(await refused("/v1/stacks:check", `"${"x".repeat(5 << 20)}"`), /^429 .*exhausted/);
});

test("query parameters that are unknown, repeated or of another type are refused by name", async () => {
  await using api = await openApi();
  const refused = async (query: string): Promise<string> => {
    const { status, text } = await exchange(api.unix, "GET", `/v1/instances${query}`, undefined);
    return `${status} ${text}`;
  };
  assert.match(await refused("?stak=shop"), /^400 .*no parameter stak.*stack, all/);
  assert.match(await refused("?stack=a&stack=b"), /^400 .*more than once/);
  assert.match(await refused("?all=perhaps"), /^400 .*true or false/);
  assert.match(await refused("?all"), /^200 /);
});

test("what is kept is sent again until the revision changes", async () => {
  const needs = exampleNeeds();
  await using api = await openApi({ needs });
  const ask = async (): Promise<number> => {
    const { text } = await exchange(api.unix, "GET", "/v1/instances", undefined);
    return (JSON.parse(text) as { instances: unknown[] }).instances.length;
  };
  assert.equal(await ask(), 1);
  needs.cloud.instances.list = () => [];
  assert.equal(await ask(), 1);
  needs.revision += 1;
  assert.equal(await ask(), 0);
});

test("a client that goes away aborts its call, by REST and by gRPC", async () => {
  for (const protocol of ["rest", "grpc"]) {
    const needs = exampleNeeds();
    const news = new Wake();
    const began = news.next(AbortSignal.any([]));
    let aborted = false;
    needs.cloud.instances.logs = async function* (_id, _range, call) {
      yield { timeMs: thenMs, stream: "stdout", bytes: Buffer.from("first"), partial: false };
      const gone = once(call.signal, "abort");
      news.ring();
      await gone;
      aborted = true;
      news.ring();
    };
    await using api = await openApi({ needs });
    if (protocol === "rest") {
      const socket = connect(api.socketPath);
      socket.write("GET /v1/instances/web-1/logs?follow=true HTTP/1.1\r\nhost: croft\r\n\r\n");
      await began;
      const ended = news.next(AbortSignal.any([]));
      socket.destroy();
      await ended;
    } else {
      const session = connectHttp2("http://croft", { createConnection: () => connect(api.socketPath) });
      const stream = session.request({
        ":method": "POST",
        ":path": "/croft.v1.InstanceService/StreamLogs",
        "content-type": "application/grpc+json",
        te: "trailers",
      });
      const message = Buffer.from('{"instance":"web-1","follow":true}');
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      stream.end(Buffer.concat([head, message]));
      await began;
      const ended = news.next(AbortSignal.any([]));
      stream.close();
      await ended;
      session.destroy();
    }
    assert.ok(aborted, protocol);
  }
});

test("a client that does not read stops the stream at its source", async () => {
  const needs = exampleNeeds();
  let produced = 0;
  needs.images.save = async function* () {
    while (produced < 1000) {
      produced += 1;
      yield Buffer.alloc(1 << 20);
    }
  };
  await using api = await openApi({ needs });
  const socket = connect(api.socketPath);
  socket.pause();
  socket.write("GET /v1/images:save?references=a HTTP/1.1\r\nhost: croft\r\naccept: application/x-tar\r\n\r\n");
  // It has stopped when it makes no progress although everybody else does.
  const settled = async (): Promise<number> => {
    const before = produced;
    for (let turn = 0; turn < 20; turn++) await exchange(api.unix, "GET", "/v1/host", undefined);
    return before > 0 && before === produced ? produced : await settled();
  };
  await settled();
  assert.ok(produced < 50, `${produced} MiB for a client that reads nothing`);
  socket.destroy();
});

test("archives travel as they are, both ways", async () => {
  await using api = await openApi();
  const headers = { "content-type": "application/x-tar" };
  const sent = await exchange(api.unix, "POST", "/v1/files", Buffer.from([0, 1, 10, 255]), headers);
  const again = await exchange(api.unix, "POST", "/v1/files", '{"chunk":"AAEK"}\n{"chunk":"/w=="}\n');
  assert.equal(sent.status, 200);
  assert.equal(sent.text, again.text);
  const saved = await exchange(api.unix, "GET", "/v1/images:save?references=a", undefined, {
    accept: "application/x-tar",
  });
  assert.equal(saved.text.length, 6 + 100_000);
  assert.equal(saved.headers["content-type"], "application/octet-stream");
});

test("a plain stream that fails after it began does not look like a whole one", async () => {
  const needs = exampleNeeds();
  needs.images.save = async function* () {
    yield Buffer.from("half of it");
    throw new Error("the disk is gone");
  };
  await using api = await openApi({ needs });
  const headers = { accept: "application/octet-stream" };
  await assert.rejects(exchange(api.unix, "GET", "/v1/images:save?references=a", undefined, headers));
  const lines = await exchange(api.unix, "GET", "/v1/images:save?references=a", undefined);
  assert.match(lines.text, /^\{"result":\{"chunk":"[^"]+"\}\}\n\{"error":\{"code":13,"reason":"bug",.*\}\}\n$/);
});

test("REST works over HTTP/2 as well, and a preface in two pieces is understood", async () => {
  await using api = await openApi();
  const socket = connect(api.socketPath);
  const write = socket.write.bind(socket);
  let first = true;
  // Splits the first write within the preface, as a network may.
  socket.write = (data: Buffer, ...rest: []) => {
    if (!first || data.length < 8) return write(data, ...rest);
    first = false;
    write(data.subarray(0, 5));
    setTimeout(() => write(data.subarray(5), ...rest), 10);
    return true;
  };
  const session = connectHttp2("http://croft", { createConnection: () => socket });
  const stream = session.request({ ":path": "/v1/instances/web-1" });
  const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
  assert.equal(headers[":status"], 200);
  assert.match(await text(stream), /"name":"web-1"/);
  session.destroy();
});

async function* reflectionQuestions() {
  yield { messageRequest: { case: "listServices" as const, value: "" } };
  yield { messageRequest: { case: "fileContainingSymbol" as const, value: "croft.v1.Instance" } };
  yield { messageRequest: { case: "fileContainingSymbol" as const, value: "croft.v1.Nothing" } };
}

test("gRPC reflection, in both versions, and health are served", async () => {
  await using api = await openApi();
  const transport = grpcTransport(api.unix);
  const health = createClient(Health, transport);
  assert.equal((await health.check({})).status, HealthCheckResponse_ServingStatus.SERVING);
  assert.equal(
    (await health.check({ service: "croft.v1.StackService" })).status,
    HealthCheckResponse_ServingStatus.SERVING,
  );
  await assert.rejects(health.check({ service: "croft.v1.NoService" }), /no service/);
  for (const service of [ServerReflection, ServerReflectionAlpha]) {
    const client = createClient(service, transport);
    const answers = (await Array.fromAsync(client.serverReflectionInfo(reflectionQuestions()))).map(
      (answer) => answer.messageResponse,
    );
    assert.ok(answers[0]?.case === "listServicesResponse");
    assert.ok(answers[0].value.service.some(({ name }) => name === "croft.v1.InstanceService"));
    assert.ok(answers[1]?.case === "fileDescriptorResponse");
    assert.ok(answers[1].value.fileDescriptorProto.length > 3, "imports are sent along");
    assert.equal(answers[2]?.case, "errorResponse");
  }
});

test("calls beyond the limit are refused, and those within it go on", async () => {
  await using api = await openApi({ maxCalls: 2 });
  const open = (): Socket => {
    const socket = connect(api.socketPath);
    socket.write("GET /v1/events HTTP/1.1\r\nhost: croft\r\n\r\n");
    return socket;
  };
  const watching = [open(), open()];
  await Promise.all(watching.map((socket) => once(socket, "data")));
  assert.match((await exchange(api.unix, "GET", "/v1/host", undefined)).text, /"exhausted"/);
  watching[0]?.destroy();
  let answer = "";
  while (!answer.includes('"box"')) answer = (await exchange(api.unix, "GET", "/v1/host", undefined)).text;
  watching[1]?.destroy();
});

test("the socket is for its owner only, and one that a killed daemon left is replaced", async () => {
  await using api = await openApi();
  // 0660 where the machine has a group croft; never for everybody.
  assert.equal(statSync(api.socketPath).mode & 0o007, 0);
  await assert.rejects(openAt(api.socketPath), (error) => isFault(error, "conflict"));
  const folder = mkdtempSync(join(tmpdir(), "croft-stale-"));
  const stale = join(folder, "stale.sock");
  const script = `require("net").createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, "SIGKILL"))`;
  assert.throws(() => execFileSync(process.execPath, ["-e", script]));
  assert.ok(statSync(stale).isSocket());
  await (await openAt(stale)).close(0);
  rmSync(folder, { recursive: true });
});

async function openAt(socketPath: string) {
  return await listen([], { socketPath }, { clock: systemClock, log: { error: () => {} }, maxCalls: 1 });
}

test("over TCP with TLS and a token, by HTTP/1.1 and by HTTP/2", async () => {
  const folder = mkdtempSync(join(tmpdir(), "croft-tls-"));
  const key = join(folder, "key.pem");
  const cert = join(folder, "cert.pem");
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-keyout",
      key,
      "-out",
      cert,
    ].concat(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]),
    { stdio: "ignore" },
  );
  chmodSync(key, 0o600);
  const tls = { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
  const { token, kept } = createToken("ci");
  await using api = await openApi({ tcp: { host: "127.0.0.1", port: 0, tokens: [kept], tls } });
  const { request } = await import("node:https");
  const headers = { authorization: `Bearer ${token}` };
  const answered = request({
    host: "127.0.0.1",
    port: api.port,
    path: "/v1/host",
    headers,
    ca: tls.cert,
    agent: false,
  }).end();
  const [response] = (await once(answered, "response")) as [NodeJS.ReadableStream & { statusCode: number }];
  assert.equal(response.statusCode, 200);
  response.resume();
  const session = connectHttp2(`https://127.0.0.1:${api.port}`, { ca: tls.cert });
  const stream = session.request({ ":path": "/v1/host", ...headers });
  assert.match(await text(stream), /"box"/);
  session.destroy();
  rmSync(folder, { recursive: true });
});

test("a body that does not come is waited for so long, and a client that never ends it is hung up on", async () => {
  const clock = { ...systemClock, after: (_delayMs: number, action: () => void) => systemClock.after(20, action) };
  await using api = await openApi({ clock });
  const socket = connect(api.socketPath);
  socket.write("POST /v1/stacks:check HTTP/1.1\r\nhost: croft\r\ncontent-length: 100\r\n\r\n{");
  const answer = await text(socket);
  assert.match(answer, /^HTTP\/1\.1 504 /);
  assert.match(answer, /"reason":"timeout"/);
});

test("closing lets a call finish and takes no more connections", async () => {
  const needs = exampleNeeds();
  const news = new Wake();
  const asked = news.next(AbortSignal.any([]));
  const go = new Wake();
  needs.host.diagnose = async () => {
    const told = go.next(AbortSignal.any([]));
    news.ring();
    await told;
    return [];
  };
  await using api = await openApi({ needs });
  const answer = exchange(api.unix, "POST", "/v1/host:diagnose", "{}");
  await asked;
  const closed = api.close(60_000);
  await assert.rejects(exchange(api.unix, "GET", "/v1/host", undefined));
  go.ring();
  assert.equal((await answer).status, 200);
  await closed;
});

test("a name in x-croft-user is an author only while it looks like one", async () => {
  const needs = exampleNeeds();
  const authors: string[] = [];
  needs.cloud.stacks.rollback = async (_stack, _to, author) => {
    authors.push(author);
    return await needs.operations.get("op-1" as OperationId);
  };
  await using api = await openApi({ needs });
  for (const name of ["anna", encodeURIComponent("Zoë"), "%1b[31mred", "%zz"]) {
    await exchange(api.unix, "POST", "/v1/stacks/shop:rollback", "{}", { "x-croft-user": name });
  }
  assert.deepEqual(authors, ["anna", "Zoë", "local", "local"]);
});

test("the daemon describes its API", async () => {
  await using api = await openApi();
  const { status, text } = await exchange(api.unix, "GET", "/v1/openapi.json", undefined);
  assert.equal(status, 200);
  assert.equal((JSON.parse(text) as { openapi: string }).openapi, "3.1.0");
});
