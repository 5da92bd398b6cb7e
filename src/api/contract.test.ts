import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { DescMethod } from "@bufbuild/protobuf";
import { systemClock } from "../base/call.ts";
import { examples } from "./example.fixture.ts";
import { listen, type Api } from "./listen.ts";
import type { Needs } from "./need.ts";
import { brokenNeeds, exampleNeeds } from "./needs.fixture.ts";
import { services } from "./service/all.ts";
import { speakClient, speakGrpc, speakRest, type Heard, type Place } from "./speak.fixture.ts";
import { createToken } from "./token.ts";

/** Every method of every service, so that a new one is tested from its first day. */
const methods: readonly DescMethod[] = services(exampleNeeds()).flatMap(({ service }) => service.methods);

const folder = mkdtempSync(join(tmpdir(), "croft-api-"));
const { token, kept } = createToken("ci");
const logged: Readonly<Record<string, unknown>>[] = [];
const log = { error: (detail: Readonly<Record<string, unknown>>): void => void logged.push(detail) };
const opened: Api[] = [];

async function open(
  name: string,
  needs: Needs = exampleNeeds(),
): Promise<{ unix: Place; tcp: Place; stranger: Place }> {
  const socketPath = join(folder, name);
  const tcp = { host: "127.0.0.1", port: 0, tokens: [kept] };
  const api = await listen(services(needs), { socketPath, tcp }, { clock: systemClock, log, maxCalls: 100 });
  opened.push(api);
  const port = api.tcpPort ?? 0;
  return {
    unix: { kind: "unix", socketPath },
    tcp: { kind: "tcp", port, token },
    stranger: { kind: "tcp", port, token: undefined },
  };
}

after(async () => {
  await Promise.all(opened.map((api) => api.close(0)));
  rmSync(folder, { recursive: true });
});

describe("each method answers alike by REST, by gRPC and by our client, on the unix socket and over TCP", () => {
  let places: Awaited<ReturnType<typeof open>>;
  before(async () => {
    const needs = exampleNeeds();
    await needs.events.publish({ kind: "instance.started", subject: "shop/web-1", message: "it runs" });
    await needs.events.publish({ kind: "image.pulled", subject: "nginx", message: "it is here" });
    places = await open("alike.sock", needs);
  });
  for (const method of methods) {
    const rows = examples[method.name] ?? [];
    test(method.name, async () => {
      assert.notEqual(rows.length, 0, `add a row for ${method.name} to example.fixture.ts`);
      for (const { say, fault } of rows) {
        const heard = await Promise.all([
          speakRest(places.unix, method, say),
          speakRest(places.tcp, method, say),
          speakGrpc(places.unix, method, say),
          speakGrpc(places.tcp, method, say),
          speakClient(places.unix, method, say),
          speakClient(places.tcp, method, say),
        ]);
        const [first, ...others] = heard.map(withoutClock).map(withoutCuts);
        assert.equal(first?.fault?.reason, fault, `${JSON.stringify(say)} → ${JSON.stringify(first)}`);
        if (fault === undefined) assert.notEqual(first?.answers.length, 0);
        for (const other of others) assert.deepEqual(other, first);
      }
    });
  }
});

describe("what nobody foresaw is a bug with an id, and tells nothing else", () => {
  let places: Awaited<ReturnType<typeof open>>;
  before(async () => {
    places = await open("broken.sock", brokenNeeds());
  });
  for (const method of methods) {
    const [row] = examples[method.name] ?? [];
    test(method.name, async () => {
      for (const speak of [speakRest, speakGrpc]) {
        logged.length = 0;
        const { fault } = await speak(places.unix, method, row?.say ?? []);
        // A stack file can be checked in any world.
        if (method.name === "CheckStack") return;
        assert.equal(fault?.reason, "bug");
        assert.doesNotMatch(JSON.stringify(fault), /secret|TypeError/);
        assert.match(String(logged[0]?.["error"]), /\/root\/\.secret/);
        assert.deepEqual(fault?.detail, { id: logged[0]?.["id"] });
      }
    });
  }
});

describe("nobody is let in over TCP without a token", () => {
  let places: Awaited<ReturnType<typeof open>>;
  before(async () => {
    places = await open("stranger.sock");
  });
  for (const method of methods) {
    test(method.name, async () => {
      const say = examples[method.name]?.[0]?.say ?? [];
      for (const speak of [speakRest, speakGrpc]) {
        for (const token of [undefined, "croft_wrong"]) {
          const { answers, fault } = await speak({ ...places.stranger, token } as Place, method, say);
          assert.equal(fault?.reason, "unauthenticated");
          assert.deepEqual(answers, []);
        }
      }
    });
  }
});

/** Readings carry the time at which they were taken. */
function withoutClock({ answers, fault }: Heard): Heard {
  const timeless = answers.map((answer) =>
    answer !== null && typeof answer === "object" && "instances" in answer && "time" in answer
      ? { ...answer, time: "now" }
      : answer,
  );
  return fault === undefined ? { answers: timeless } : { answers: timeless, fault };
}

/** Plain bytes may be cut elsewhere on their way. */
function withoutCuts(heard: Heard): Heard {
  const chunks = heard.answers.map((answer) =>
    answer !== null && typeof answer === "object" && "chunk" in answer
      ? Buffer.from(answer["chunk"] as string, "base64")
      : [],
  );
  const [first] = chunks;
  return first instanceof Buffer
    ? { ...heard, answers: [Buffer.concat(chunks as Buffer[]).toString("base64")] }
    : heard;
}
