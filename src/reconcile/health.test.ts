import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall } from "../base/call.ts";
import { instanceId } from "../base/id.ts";
import { TestClock } from "../base/test-clock.ts";
import type { Engine, Session } from "../instance/contract.ts";
import { HealthMonitor } from "./health.ts";

/** Output without a byte. */
async function* untilEnd(
  end: Promise<void>,
): AsyncGenerator<{ readonly stream: "stdout"; readonly bytes: Uint8Array }> {
  await end;
  yield* [];
}

test("a check that began too late is ended, and judged as one that gave no answer", async () => {
  const id = instanceId("shop", "web", 1, "0123abcd");
  const clock = new TestClock();
  const cancel = new AbortController();
  let closed = 0;
  // It writes nothing and does not end by itself.
  const begin = (): Session => {
    const end = Promise.withResolvers<void>();
    return {
      output: untilEnd(end.promise),
      write: async () => {},
      endInput: () => {},
      resize: async () => {},
      signal: async () => {},
      exited: end.promise.then(() => 137),
      async close() {
        closed += 1;
        end.resolve();
      },
    };
  };
  // Whoever cannot be cancelled on the way returns a session whose time is over.
  const exec = {
    async exec(): Promise<Session> {
      await clock.sleep(2_000);
      return begin();
    },
  };
  const changes: string[] = [];
  const monitor = new HealthMonitor(
    () => ({ name: "slow", exec }) as unknown as Engine,
    (_id, health, message) => changes.push(`${health}: ${message}`),
    backgroundCall(clock, cancel.signal),
  );
  monitor.follow({
    id,
    address: undefined,
    startedMs: clock.nowMs(),
    section: {
      check: { kind: "exec", argv: ["true"] },
      intervalMs: 1_000,
      timeoutMs: 1_000,
      retries: 1,
      startPeriodMs: 0,
    },
  });
  await clock.advance(10_000);
  assert.deepEqual(changes, ["unhealthy: no answer within 1000 ms"]);
  assert.ok(closed >= 2, "each is closed");
  cancel.abort();
});
