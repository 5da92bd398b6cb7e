import assert from "node:assert/strict";
import { test } from "node:test";
import { targetOf } from "./context.ts";

test("what is typed goes before the environment, an address before a root", () => {
  const env = { CROFT_ROOT: "/b", CROFT_HOST: "unix:///c.sock" };
  assert.deepEqual(targetOf(undefined, "unix:///d.sock", env), { kind: "unix", socketPath: "/d.sock" });
  assert.deepEqual(targetOf("/a", undefined, env), { kind: "unix", socketPath: "/a/run/croft.sock" });
  assert.deepEqual(targetOf(undefined, undefined, env), { kind: "unix", socketPath: "/c.sock" });
  assert.deepEqual(targetOf(undefined, undefined, { CROFT_ROOT: "/b" }), {
    kind: "unix",
    socketPath: "/b/run/croft.sock",
  });
  assert.deepEqual(targetOf(undefined, undefined, {}), { kind: "unix", socketPath: "/run/croft/croft.sock" });
});

test("an address over TCP takes its token from the environment, and is refused without", () => {
  const target = targetOf(undefined, "https://host:7443", { CROFT_TOKEN: "croft_x" });
  assert.equal(target.kind === "tcp" && target.token, "croft_x");
  assert.throws(() => targetOf(undefined, "https://host:7443", {}), { reason: "unauthenticated" });
});
