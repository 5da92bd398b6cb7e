import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../../base/fault.ts";
import { TestClock } from "../../base/test-clock.ts";
import type { Context } from "../context.ts";
import { command } from "./events.ts";

const event = (sequence: number, timeMs: number) => ({
  sequence,
  time: new Date(timeMs).toISOString(),
  kind: "stack.removed",
  subject: `s${sequence}`,
  message: "was removed",
});

test("a daemon that goes away before the first event is waited for, and nothing since then is missed", async () => {
  const clock = new TestClock();
  const beganMs = clock.nowMs();
  const recorded = [event(1, beganMs - 5000), event(2, beganMs - 1), event(3, beganMs + 100), event(4, beganMs + 200)];
  const asked: unknown[] = [];
  let isThere = true;
  const client = {
    host: {
      get: async () => {
        if (!isThere) throw new Fault("unavailable", "the Croft daemon does not answer");
      },
    },
    events: {
      async *watch(request: { after?: number }) {
        asked.push(request.after);
        if (asked.length <= 2) throw new Fault("unavailable", "the connection to the daemon was lost");
        yield* recorded;
        throw new Fault("cancelled", "the end of the test");
      },
    },
  };
  const printed: string[] = [];
  const screen = { write: async (text: string) => void printed.push(text) };
  const context = { client, out: screen, err: screen, json: true, quiet: false, clock } as unknown as Context;
  const flags = { kind: [], after: undefined, noFollow: false };
  const running = command.run({ flags, args: {} }, context);
  const ended = assert.rejects(async () => await running, { reason: "cancelled" });
  for (let step = 0; step < 10; step += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(500);
  }
  await ended;
  assert.deepEqual(asked, [undefined, 0, 0]);
  assert.deepEqual(
    printed.map((line) => (JSON.parse(line) as { sequence: number }).sequence),
    [3, 4],
  );

  isThere = false;
  await assert.rejects(async () => await command.run({ flags, args: {} }, context), { reason: "unavailable" });
});
