import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { backgroundCall } from "../base/call.ts";
import { endProcess, identifyProcess, isAlive, parseStat, readBootId, readPssBytes, signalProcess } from "./proc.ts";
import { stream } from "./process.ts";

const call = backgroundCall();

test("a process is known by number and start, and gone when it ended", async () => {
  const streams = stream(["sleep", "1000"], {}, call);
  const identity = identifyProcess(streams.pid);
  assert.ok(identity !== undefined && isAlive(identity));
  assert.ok((readPssBytes(streams.pid) ?? 0) > 0);
  assert.equal(signalProcess(identity, "SIGTERM"), true);
  assert.deepEqual(await streams.exited, { code: null, signal: "SIGTERM" });
  assert.equal(isAlive(identity), false);
  assert.equal(identifyProcess(streams.pid), undefined);
  assert.equal(readPssBytes(streams.pid), undefined);
  assert.equal(signalProcess(identity, "SIGTERM"), false);
});

test("a process that got the number of another is not hit", async () => {
  const streams = stream(["sleep", "1000"], {}, call);
  const identity = identifyProcess(streams.pid);
  assert.ok(identity !== undefined);
  const former = { ...identity, startTicks: identity.startTicks - 1 };
  assert.equal(isAlive(former), false);
  assert.equal(signalProcess(former, "SIGKILL"), false);
  assert.ok(isAlive(identity));
  streams.kill("SIGKILL");
  await streams.exited;
});

test("a process that was ended is gone, and ending it again does nothing", async () => {
  const streams = stream(["sleep", "60"], {}, call);
  const identity = identifyProcess(streams.pid);
  assert.ok(identity !== undefined);
  await endProcess(identity, call);
  assert.equal(isAlive(identity), false);
  await endProcess(identity, call);
  await streams.exited;
});

test("a program's name cannot forge its state", () => {
  const rest = Array.from({ length: 48 }, (_, index) => String(index + 5)).join(" ");
  fc.assert(
    fc.property(fc.string({ maxLength: 15 }), fc.constantFrom("R", "S", "Z"), (name, state) => {
      const stat = parseStat(`42 (${name}) ${state} 4 ${rest}`);
      // Field 22, when field 3 is the state and field n holds n from 4 on.
      assert.deepEqual(stat, { state, startTicks: 22 });
    }),
  );
});

test("the boot has an id", () => {
  assert.match(readBootId(), /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
});
