import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, isFault } from "./fault.ts";

void test("a fault keeps what it was given, and is an error with a stack", () => {
  const cause = new Error("EADDRINUSE");
  const fault = new Fault("conflict", "publish 8080: held by shop/web-1", {
    hint: "choose another port",
    cause,
    detail: { port: "8080" },
  });
  assert.ok(fault instanceof Error);
  assert.deepEqual(
    [fault.name, fault.reason, fault.message, fault.hint, fault.cause, fault.detail],
    ["Fault", "conflict", "publish 8080: held by shop/web-1", "choose another port", cause, { port: "8080" }],
  );
  assert.match(fault.stack ?? "", /fault\.test\.ts/);
});

void test("a fault without options has no cause and no detail", () => {
  const fault = new Fault("invalid", "no");
  assert.ok(!("cause" in fault));
  assert.deepEqual([fault.hint, fault.detail], [undefined, {}]);
});

void test("isFault tells faults from other errors, and reasons from each other", () => {
  const fault = new Fault("not-found", "no such stack");
  assert.ok(isFault(fault));
  assert.ok(isFault(fault, "not-found"));
  assert.ok(!isFault(fault, "failed"));
  for (const other of [new Error("not-found"), { reason: "not-found" }, undefined, null, "not-found"]) {
    assert.ok(!isFault(other));
  }
});

void test("from keeps a fault as it is and never calls a failure an absence", () => {
  const fault = new Fault("not-found", "no such stack");
  assert.equal(Fault.from(fault, "apply shop"), fault);
  const failure = Object.assign(new Error("ENOENT: no such file"), { code: "ENOENT" });
  const wrapped = Fault.from(failure, "apply shop");
  assert.deepEqual(
    [wrapped.reason, wrapped.message, wrapped.cause],
    ["failed", "apply shop: ENOENT: no such file", failure],
  );
  assert.equal(Fault.from("odd", "apply shop").message, "apply shop: odd");
  assert.equal(Fault.from(new DOMException("stopped", "AbortError"), "apply shop").reason, "cancelled");
});
