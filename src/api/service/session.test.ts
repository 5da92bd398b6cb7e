import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { systemClock } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { ExecInstanceRequestSchema, type ExecInstanceRequest } from "../../gen/croft/v1/instance_pb.ts";
import type { Instances } from "../../reconcile/contract.ts";
import { echoSession, exampleNeeds } from "../needs.fixture.ts";
import { execInstance } from "./session.ts";

type Said = NonNullable<MessageInitShape<typeof ExecInstanceRequestSchema>["message"]>;

async function* say(...said: Said[]): AsyncGenerator<ExecInstanceRequest> {
  for (const message of said) yield create(ExecInstanceRequestSchema, { message });
}

const begin = (start: object = {}): Said => ({
  case: "start",
  value: { instance: "web-1", command: ["cat"], interactive: true, ...start },
});
const typed = (text: string): Said => ({ case: "input", value: { kind: { case: "data", value: Buffer.from(text) } } });

/** Instances whose exec hands out an echo that ignores the end of its input, and tells whether it was closed. */
function echoing(): { instances: Instances; closed: () => boolean } {
  const { instances } = exampleNeeds().cloud;
  let closed = false;
  const exec: Instances["exec"] = async () => {
    const session = echoSession();
    const close = async (): Promise<void> => {
      closed = true;
      await session.close();
    };
    return { ...session, close, endInput: () => {} };
  };
  return { instances: { ...instances, exec }, closed: () => closed };
}

function callOf(signal: AbortSignal) {
  return { author: "", signal, clock: systemClock, report: () => {} };
}

const live = callOf(new AbortController().signal);

test("a second start, or input that was not announced, ends the session with the reason", async () => {
  for (const requests of [say(begin(), begin()), say(begin({ interactive: false }), typed("x"))]) {
    const { instances, closed } = echoing();
    await assert.rejects(Array.fromAsync(execInstance(instances, requests, live)), (error) =>
      isFault(error, "invalid"),
    );
    assert.ok(closed());
  }
});

test("input that is more than the program can be given is refused with the reason", async () => {
  const { instances } = echoing();
  const exec: Instances["exec"] = async (...given) => ({
    ...(await instances.exec(...given)),
    write: () => Promise.reject(new Fault("exhausted", "more than a MiB of input")),
  });
  const answers = Array.fromAsync(execInstance({ ...instances, exec }, say(begin(), typed("x")), live));
  await assert.rejects(answers, { reason: "exhausted" });
});

async function* sayNoMore(): AsyncGenerator<ExecInstanceRequest> {
  yield* say(begin());
  await new Promise(() => {});
}

test("a client that goes away ends the session, although nothing is said on either side", async () => {
  const { instances, closed } = echoing();
  const gone = new AbortController();
  const answers = Array.fromAsync(execInstance(instances, sayNoMore(), callOf(gone.signal)));
  setImmediate(() => gone.abort());
  await answers;
  assert.ok(closed());
});

test("a detached program goes on when the call has ended", async () => {
  const { instances, closed } = echoing();
  assert.deepEqual(await Array.fromAsync(execInstance(instances, say(begin({ detach: true })), live)), []);
  assert.ok(!closed());
});
