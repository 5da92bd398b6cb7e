import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import type { ClientChannel } from "ssh2";
import { exitOf } from "./guest-channel.ts";

/** What ssh2 tells of a channel whose program ended. */
async function told(...events: readonly (readonly [string, ...unknown[]])[]): Promise<number> {
  const channel = new EventEmitter();
  const exited = exitOf(channel as unknown as ClientChannel);
  for (const [event, ...values] of events) channel.emit(event, ...values);
  return await exited;
}

test("a program's exit code is its own, or tells the signal that ended it", async () => {
  assert.equal(await told(["exit", 0], ["close"]), 0);
  assert.equal(await told(["exit", 5], ["close"]), 5);
  assert.equal(await told(["exit", null, "SIGTERM", false, ""], ["close"]), 143);
});

test("a program whose end came before anybody listened ended as it did", async () => {
  assert.equal(await told(["close", 0]), 0);
  assert.equal(await told(["close", 5]), 5);
  assert.equal(await told(["close", null, "SIGTERM", false, ""]), 143);
});

test("a program whose guest went away, or told nonsense, was killed", async () => {
  assert.equal(await told(["close"]), 137);
  assert.equal(await told(["exit", null, "SIGNOTHING", false, ""], ["close"]), 137);
  assert.equal(await told(["exit", null, undefined, false, ""], ["close"]), 137);
});
