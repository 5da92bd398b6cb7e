import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { systemClock } from "../../base/call.ts";
import { isFault, type Fault } from "../../base/fault.ts";
import { RunInstanceRequestSchema, type RunStartSchema } from "../../gen/croft/v1/instance_pb.ts";
import { exampleNeeds } from "../needs.fixture.ts";
import { runInstance } from "./run.ts";

/** What a run that is asked for so is refused with. */
async function refusal(value: MessageInitShape<typeof RunStartSchema>): Promise<Fault> {
  const { instances } = exampleNeeds().cloud;
  const requests = (async function* () {
    yield create(RunInstanceRequestSchema, { message: { case: "start", value } });
  })();
  const call = { author: "", signal: new AbortController().signal, clock: systemClock, report: () => {} };
  try {
    for await (const _ of runInstance(instances, requests, call)) break;
  } catch (thrown) {
    assert(isFault(thrown), String(thrown));
    return thrown;
  }
  throw new Error("it was not refused");
}

test("what contradicts itself is refused", async () => {
  for (const restart of ["always", "on-failure"]) {
    const { reason, hint } = await refusal({ image: "app", remove: true, restart });
    assert.deepEqual([reason, hint], ["invalid", "leave out one of the two: --rm or --restart"]);
  }
});

test("a volume is mounted at one place, and is the run's own", async () => {
  const twice = await refusal({ image: "app", volumes: ["data:/a", "data:/b:ro"] });
  assert.deepEqual([twice.reason, twice.message], ["invalid", "data is mounted twice"]);
  const foreign = await refusal({ image: "app", volumes: ["shop/data:/a"] });
  assert.match(foreign.hint ?? "", /croft volume ls/);
});

test("a wrong name is wrong once, although it is the stack's too", async () => {
  const { reason, message } = await refusal({ image: "app", name: "Foo" });
  assert.deepEqual([reason, message], ["invalid", '"Foo" cannot be the name of a container']);
});
