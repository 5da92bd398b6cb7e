import assert from "node:assert/strict";
import { test } from "node:test";
import { type Call, type Progress, backgroundCall, systemClock } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import { SharedWork } from "./shared-work.ts";

function cancellable(): { call: Call; controller: AbortController; heard: Progress[] } {
  const controller = new AbortController();
  const heard: Progress[] = [];
  const call = {
    ...backgroundCall(systemClock, controller.signal),
    report: (progress: Progress) => heard.push(progress),
  };
  return { call, controller, heard };
}

test("work that is asked for twice at once runs once, and both hear of it", async () => {
  const shared = new SharedWork<number>();
  const [first, second] = [cancellable(), cancellable()];
  let runs = 0;
  const work = async (call: Call): Promise<number> => {
    runs += 1;
    call.report({ topic: "work", state: "begun" });
    await call.clock.sleep(5);
    return 42;
  };
  assert.deepEqual(
    await Promise.all([shared.join("a", first.call, work), shared.join("a", second.call, work)]),
    [42, 42],
  );
  assert.equal(runs, 1);
  assert.equal(first.heard.length, 1);
  assert.deepEqual(second.heard, first.heard);
  await shared.join("a", first.call, work);
  assert.equal(runs, 2);
});

test("one caller may leave; the work ends with the last", async () => {
  const shared = new SharedWork<string>();
  const [first, second] = [cancellable(), cancellable()];
  const ended = Promise.withResolvers<void>();
  const work = async (call: Call): Promise<string> => {
    try {
      await call.clock.sleep(60_000, call.signal);
      return "done";
    } finally {
      ended.resolve();
    }
  };
  const one = shared.join("a", first.call, work);
  const two = shared.join("a", second.call, work);
  first.controller.abort();
  await assert.rejects(one, (error) => isFault(error, "cancelled"));
  assert.equal(
    await Promise.race([ended.promise.then(() => "ended"), systemClock.sleep(10).then(() => "running")]),
    "running",
  );
  second.controller.abort(new Fault("timeout", "too slow"));
  await assert.rejects(two, (error) => isFault(error, "timeout"));
  await ended.promise;
});

test("a failure reaches everybody and is not kept", async () => {
  const shared = new SharedWork<number>();
  const fault = new Fault("corrupt", "no");
  const fail = (): Promise<number> => Promise.reject(fault);
  const outcomes = await Promise.allSettled([
    shared.join("a", backgroundCall(), fail),
    shared.join("a", backgroundCall(), fail),
  ]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["rejected", "rejected"],
  );
  assert.equal(await shared.join("a", backgroundCall(), () => Promise.resolve(1)), 1);
});
