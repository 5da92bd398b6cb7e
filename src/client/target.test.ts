import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../base/fault.ts";
import { targetFromEnvironment } from "./target.ts";

const usual = "/run/croft/croft.sock";

test("the environment names a socket or an address with its token", () => {
  assert.deepEqual(targetFromEnvironment({}, usual), { kind: "unix", socketPath: usual });
  const other = targetFromEnvironment({ CROFT_HOST: "unix:///tmp/my%20croft.sock" }, usual);
  assert.deepEqual(other, { kind: "unix", socketPath: "/tmp/my croft.sock" });
  const far = targetFromEnvironment({ CROFT_HOST: "https://[::1]:7443", CROFT_TOKEN: "t" }, usual);
  assert.ok(far.kind === "tcp");
  assert.deepEqual([far.url.port, far.token], ["7443", "t"]);
});

function asked(env: Readonly<Record<string, string>>) {
  return () => targetFromEnvironment(env, usual);
}

test("an address without a token, or one that is none, is refused with what would be right", () => {
  assert.throws(asked({ CROFT_HOST: "http://box:7080" }), (error) => isFault(error, "unauthenticated"));
  assert.throws(asked({ CROFT_HOST: "box:7080" }), (error) => isFault(error, "invalid"));
  assert.throws(asked({ CROFT_HOST: "ftp://box" }), (error) => isFault(error, "invalid"));
});
