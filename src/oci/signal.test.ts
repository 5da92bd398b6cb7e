import assert from "node:assert/strict";
import { test } from "node:test";
import { signalNumber } from "./signal.ts";

for (const [said, number] of [
  ["9", 9],
  ["KILL", 9],
  ["SIGKILL", 9],
  ["sigterm", 15],
  ["SIGRTMIN+3", 37],
  ["RTMAX-1", 63],
  ["64", 64],
] as const) {
  test(`${said} is signal ${number}`, () => assert.equal(signalNumber(said), number));
}

for (const said of ["", "0", "65", "-1", "1.5", "SIGNOTHING", "RTMIN+40", "SIG"]) {
  test(`"${said}" is no signal`, () => {
    assert.throws(() => signalNumber(said), { name: "Fault", reason: "invalid" });
  });
}
