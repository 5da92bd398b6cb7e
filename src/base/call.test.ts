import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { backgroundCall, systemClock, throwIfCancelled, withDeadline } from "./call.ts";
import { Fault, isFault } from "./fault.ts";
import { settled, TestClock } from "./test-clock.ts";
import { Wake } from "./wake.ts";

/** What a promise has become, as far as can be told now. */
async function stateOf(promise: Promise<unknown>): Promise<string> {
  let state = "pending";
  promise.then(
    () => (state = "fulfilled"),
    () => (state = "rejected"),
  );
  await settled();
  return state;
}

void describe("deadlines", () => {
  void test("a call is cancelled as a timeout when its time is over, and not before", async () => {
    const clock = new TestClock();
    using call = withDeadline(backgroundCall(clock), 1_000, "pull nginx");
    await clock.advance(999);
    throwIfCancelled(call);
    await clock.advance(1);
    assert.throws(
      () => throwIfCancelled(call),
      (thrown) => isFault(thrown, "timeout") && thrown.message === "pull nginx: not done within 1000 ms",
    );
  });

  void test("the outer call's cancellation comes through as it was, also when it came first", () => {
    const reason = new Fault("unavailable", "the daemon is stopping");
    const controller = new AbortController();
    const outer = backgroundCall(new TestClock(), controller.signal);
    using before = withDeadline(outer, 1_000, "pull nginx");
    controller.abort(reason);
    using after = withDeadline(outer, 1_000, "pull nginx");
    for (const call of [before, after]) assert.throws(() => throwIfCancelled(call), reason);
  });

  void test("a call that is done leaves no timer and is never cancelled by its deadline", async () => {
    const clock = new TestClock();
    const call = withDeadline(backgroundCall(clock), 1_000, "pull nginx");
    call[Symbol.dispose]();
    assert.equal(clock.waiting, 0);
    await clock.advance(5_000);
    throwIfCancelled(call);
  });

  void test("progress goes to whoever watches the outer call", () => {
    const seen: string[] = [];
    const outer = {
      ...backgroundCall(new TestClock()),
      report: ({ topic }: { topic: string }) => void seen.push(topic),
    };
    using call = withDeadline(outer, 1_000, "pull nginx");
    call.report({ topic: "layer", state: "downloading" });
    assert.deepEqual(seen, ["layer"]);
  });

  void test("an abort without a Fault as its reason is a cancelled Fault", () => {
    const call = backgroundCall(new TestClock(), AbortSignal.abort());
    assert.throws(
      () => throwIfCancelled(call),
      (thrown) => isFault(thrown, "cancelled"),
    );
  });
});

/** What every clock keeps; `pass` lets time go by. */
function clockSuite(
  name: string,
  make: () => { clock: typeof systemClock; pass: (ms: number) => Promise<void> },
): void {
  void describe(`clock: ${name}`, () => {
    void test("time goes forward", async () => {
      const { clock, pass } = make();
      const [wallMs, monotonicMs] = [clock.nowMs(), clock.monotonicMs()];
      await pass(5);
      assert.ok(clock.nowMs() > wallMs && clock.monotonicMs() > monotonicMs);
    });

    void test("a sleeper wakes when its time has come", async () => {
      const { clock, pass } = make();
      const sleeping = clock.sleep(5);
      assert.equal(await stateOf(sleeping), "pending");
      await pass(50);
      await sleeping;
    });

    void test("a sleeper is woken by its signal, with the signal's own Fault", async () => {
      const { clock } = make();
      const reason = new Fault("unavailable", "the daemon is stopping");
      const controller = new AbortController();
      const sleeping = clock.sleep(1e8, controller.signal);
      controller.abort(reason);
      await assert.rejects(sleeping, reason);
      await assert.rejects(clock.sleep(1e8, AbortSignal.abort()), (thrown) => isFault(thrown, "cancelled"));
    });

    void test("an action runs once, and not at all when it was cancelled", async () => {
      const { clock, pass } = make();
      let runs = 0;
      clock.after(1, () => (runs += 1));
      clock.after(1, () => (runs += 100))();
      await pass(30);
      await pass(30);
      assert.equal(runs, 1);
    });
  });
}

clockSuite("system", () => ({ clock: systemClock, pass: (ms) => systemClock.sleep(ms) }));
clockSuite("test", () => {
  const clock = new TestClock();
  return { clock, pass: (ms) => clock.advance(ms) };
});

void test("a test clock runs what falls due in order, each at its own time", async () => {
  const clock = new TestClock(0);
  const ran: string[] = [];
  const note = (name: string) => (): void => void ran.push(`${name} at ${clock.nowMs()}`);
  clock.after(20, note("later"));
  clock.after(10, () => {
    note("first")();
    clock.after(5, note("nested"));
  });
  clock.after(10, note("second"));
  clock.after(21, note("never"));
  await clock.advance(20);
  assert.deepEqual(ran, ["first at 10", "second at 10", "nested at 15", "later at 20"]);
  assert.deepEqual([clock.nowMs(), clock.waiting], [20, 1]);
});

void describe("a wake", () => {
  void test("wakes everyone who waits, once, and nobody who comes later", async () => {
    const wake = new Wake();
    const { signal } = new AbortController();
    const waiting = [wake.next(signal), wake.next(signal)];
    wake.ring();
    await Promise.all(waiting);
    assert.equal(await stateOf(wake.next(signal)), "pending");
  });

  void test("ends with the signal, also one that was aborted before", async () => {
    const wake = new Wake();
    const reason = new Fault("timeout", "too late");
    const controller = new AbortController();
    const waiting = wake.next(controller.signal);
    controller.abort(reason);
    await assert.rejects(waiting, reason);
    await assert.rejects(wake.next(AbortSignal.abort()), (thrown) => isFault(thrown, "cancelled"));
    wake.ring();
  });
});
