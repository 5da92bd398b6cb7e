import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { backgroundCall, throwIfCancelled, type Call } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import type { OperationId } from "../base/id.ts";
import { settled, TestClock } from "../base/test-clock.ts";
import { MemoryStore } from "../store/memory/store.ts";
import type { Operation, Operations } from "./contract.ts";
import { StoredOperations } from "./stored-operations.ts";

const call = backgroundCall();

/** Work that ends when the test says so. */
function held<Result>(): {
  readonly work: (call: Call) => Promise<Result>;
  readonly gate: PromiseWithResolvers<Result>;
} {
  const gate = Promise.withResolvers<Result>();
  const work = (call: Call): Promise<Result> => {
    call.signal.addEventListener("abort", () => {
      try {
        throwIfCancelled(call);
      } catch (cancelled) {
        gate.reject(cancelled);
      }
    });
    return gate.promise;
  };
  return { work, gate };
}

async function last(operations: Operations, id: OperationId): Promise<Operation | undefined> {
  return (await Array.fromAsync(operations.watch(id, call))).at(-1);
}

/** A store on a disk that is full from the moment it is told so. */
class FullStore extends MemoryStore {
  full = false;
  override put(...args: Parameters<MemoryStore["put"]>): Promise<number> {
    return this.full ? Promise.reject(new Fault("exhausted", "the disk is full")) : super.put(...args);
  }
}

/** A store that counts its writes. */
class CountingStore extends MemoryStore {
  writes = 0;
  override put(...args: Parameters<MemoryStore["put"]>): Promise<number> {
    this.writes += 1;
    return super.put(...args);
  }
}

void describe("operations", () => {
  void test("work that succeeds is remembered with its result and times", async () => {
    const clock = new TestClock(1_000);
    const store = new MemoryStore();
    const operations = await StoredOperations.open(store, clock);
    const { work, gate } = held<{ images: number }>();
    const begun = await operations.begin("image.pull", "nginx:1.27", work);
    assert.equal(begun.status, "running");
    await clock.advance(250);
    gate.resolve({ images: 2 });
    const expected = {
      id: begun.id,
      kind: "image.pull",
      subject: "nginx:1.27",
      status: "succeeded",
      startedMs: 1_000,
      finishedMs: 1_250,
      progress: [],
      result: { images: 2 },
    };
    assert.deepEqual(await last(operations, begun.id), expected);
    assert.deepEqual(await operations.get(begun.id), expected);
    assert.deepEqual(await (await StoredOperations.open(store, clock)).list(), [expected]);
  });

  void test("what a Fault says is recorded; its cause and detail are not", async () => {
    const store = new MemoryStore();
    const operations = await StoredOperations.open(store, new TestClock());
    const { id } = await operations.begin("stack.apply", "shop", () =>
      Promise.reject(
        new Fault("unhealthy", "web-1 did not become healthy", {
          hint: "see croft logs web-1",
          cause: new Error("password=hunter2"),
          detail: { password: "hunter2" },
        }),
      ),
    );
    const done = await last(operations, id);
    assert.equal(done?.status, "failed");
    assert.deepEqual(done.fault, {
      reason: "unhealthy",
      message: "web-1 did not become healthy",
      hint: "see croft logs web-1",
    });
    assert.doesNotMatch(JSON.stringify(await store.list("", call)), /hunter2/);
  });

  void test("the text of an unexpected error goes to the log and is not recorded", async () => {
    const logged: unknown[] = [];
    const store = new MemoryStore();
    const operations = await StoredOperations.open(store, new TestClock(), {
      onUnexpected: (_attempted, thrown) => logged.push(thrown),
    });
    const mistake = new TypeError("password=hunter2");
    const { id } = await operations.begin("stack.apply", "shop", () => Promise.reject(mistake));
    assert.deepEqual((await last(operations, id))?.fault, {
      reason: "bug",
      message: "stack.apply of shop: an unexpected TypeError",
      hint: "the daemon's log has the details",
    });
    assert.deepEqual(logged, [mistake]);
    assert.doesNotMatch(JSON.stringify(await store.list("", call)), /hunter2/);
  });

  void test("work that throws before its first await is a failed operation, not a rejected begin", async () => {
    const operations = await StoredOperations.open(new MemoryStore(), new TestClock());
    const { id } = await operations.begin("stack.apply", "shop", () => {
      throw new Fault("invalid", "no");
    });
    assert.equal((await last(operations, id))?.fault?.reason, "invalid");
  });

  void test("progress is told in bursts, only what changed, and never written while it runs", async () => {
    const clock = new TestClock();
    const store = new CountingStore();
    const operations = await StoredOperations.open(store, clock);
    const { work, gate } = held<void>();
    let working: Call = call;
    const { id } = await operations.begin("image.pull", "nginx", (call) => {
      working = call;
      return work(call);
    });
    const snapshots: Operation[] = [];
    const watching = (async () => {
      for await (const snapshot of operations.watch(id, call)) snapshots.push(snapshot);
    })();
    await settled();
    assert.equal(snapshots.length, 1, "the first snapshot comes at once");
    for (let done = 0; done <= 1_000; done += 1)
      working.report({ topic: "layer a", state: "downloading", done, total: 1_000 });
    working.report({ topic: "layer b", state: "waiting" });
    await clock.advance(1_000);
    assert.equal(snapshots.length, 2, "a thousand reports in one burst are one snapshot");
    assert.deepEqual(snapshots[1]?.progress, [
      { topic: "layer a", state: "downloading", done: 1_000, total: 1_000 },
      { topic: "layer b", state: "waiting" },
    ]);
    working.report({ topic: "layer b", state: "done" });
    await clock.advance(1_000);
    assert.deepEqual(snapshots[2]?.progress, [{ topic: "layer b", state: "done" }]);
    assert.equal(store.writes, 1);
    gate.resolve();
    await watching;
    assert.equal(store.writes, 2);
    assert.deepEqual([snapshots.length, snapshots[3]?.status, snapshots[3]?.progress], [4, "succeeded", []]);
    assert.deepEqual(
      (await operations.get(id)).progress.map((line) => `${line.topic}: ${line.state}`),
      ["layer a: downloading", "layer b: done"],
    );
    assert.equal(clock.waiting, 0);
  });

  void test("a watcher that arrives late gets every line first, and many may watch", async () => {
    const clock = new TestClock();
    const operations = await StoredOperations.open(new MemoryStore(), clock);
    const { work, gate } = held<void>();
    const { id } = await operations.begin("image.pull", "nginx", (call) => {
      for (let layer = 0; layer < 10_000; layer += 1) call.report({ topic: `layer ${layer}`, state: "done" });
      return work(call);
    });
    const watchers = Array.from({ length: 5 }, () => Array.fromAsync(operations.watch(id, call)));
    await clock.advance(100);
    gate.resolve();
    for (const snapshots of await Promise.all(watchers)) {
      assert.equal(snapshots[0]?.progress.length, 4096, "the lines kept are bounded");
      assert.equal(snapshots[0]?.progress.at(-1)?.topic, "layer 9999");
      assert.equal(snapshots.at(-1)?.status, "succeeded");
    }
    assert.equal((await operations.get(id)).progress.length, 256, "the lines recorded are bounded");
  });

  void test("a cancelled operation ends as cancelled, once; a done one cannot be cancelled", async () => {
    const operations = await StoredOperations.open(new MemoryStore(), new TestClock());
    const { id } = await operations.begin("stack.apply", "shop", held<void>().work);
    await operations.cancel(id);
    const done = await last(operations, id);
    assert.deepEqual([done?.status, done?.fault?.reason], ["cancelled", "cancelled"]);
    await assert.rejects(operations.cancel(id), (thrown) => isFault(thrown, "precondition"));
    const none = "op-none" as OperationId;
    await assert.rejects(operations.cancel(none), (thrown) => isFault(thrown, "not-found"));
    await assert.rejects(operations.get(none), (thrown) => isFault(thrown, "not-found"));
    await assert.rejects(Array.fromAsync(operations.watch(none, call)), (thrown) => isFault(thrown, "not-found"));
  });

  void test("watching ends with its call, and the work goes on", async () => {
    const operations = await StoredOperations.open(new MemoryStore(), new TestClock());
    const { work, gate } = held<void>();
    const { id } = await operations.begin("stack.apply", "shop", work);
    const controller = new AbortController();
    const watching = Array.fromAsync(operations.watch(id, backgroundCall(call.clock, controller.signal)));
    controller.abort();
    await assert.rejects(watching, (thrown) => isFault(thrown, "cancelled"));
    gate.resolve();
    assert.equal((await last(operations, id))?.status, "succeeded");
  });

  void test("what a dead daemon left running is interrupted, and what was done stays as it was", async () => {
    const clock = new TestClock(5_000);
    const store = new MemoryStore();
    const dead = await StoredOperations.open(store, clock);
    const { id: done } = await dead.begin("stack.apply", "shop", () => Promise.resolve(1));
    await last(dead, done);
    const { id: lost } = await dead.begin("stack.apply", "blog", held<void>().work);
    await clock.advance(1_000);
    const operations = await StoredOperations.open(store, clock);
    assert.deepEqual(
      (await operations.list()).map((operation) => [operation.id, operation.status, operation.finishedMs]),
      [
        [lost, "interrupted", 6_000],
        [done, "succeeded", 5_000],
      ],
    );
    await assert.rejects(operations.cancel(lost), (thrown) => isFault(thrown, "precondition"));
  });

  void test("a full disk does not keep it from starting: what was left running is interrupted all the same", async () => {
    const store = new FullStore();
    const dead = await StoredOperations.open(store, new TestClock());
    const { id } = await dead.begin("stack.apply", "shop", held<void>().work);
    store.full = true;
    const logged: string[] = [];
    const operations = await StoredOperations.open(store, new TestClock(), {
      onUnexpected: (attempted) => logged.push(attempted),
    });
    assert.deepEqual(logged, ["record the end of stack.apply of shop"]);
    assert.equal((await last(operations, id))?.status, "interrupted");
    assert.deepEqual(
      (await operations.list()).map((operation) => operation.status),
      ["interrupted"],
    );
    await assert.rejects(operations.cancel(id), (thrown) => isFault(thrown, "precondition"));
    store.full = false;
    const again = await StoredOperations.open(store, new TestClock());
    assert.equal((await store.get<Operation>(`operation/${id}`, call))?.value.status, "interrupted");
    await again.close();
  });

  void test("closing interrupts what runs, waits for its record, and takes no new work", async () => {
    const store = new MemoryStore();
    const operations = await StoredOperations.open(store, new TestClock());
    const { id } = await operations.begin("stack.apply", "shop", held<void>().work);
    await operations.close();
    assert.equal((await store.get<Operation>(`operation/${id}`, call))?.value.status, "interrupted");
    await assert.rejects(operations.begin("stack.apply", "shop", held<void>().work), (thrown) =>
      isFault(thrown, "unavailable"),
    );
  });

  void test("finished operations are forgotten by count and by age, running ones never", async () => {
    const clock = new TestClock();
    const store = new MemoryStore();
    const options = { retainCount: 3, retainMs: 10_000 };
    const operations = await StoredOperations.open(store, clock, options);
    const { id: running } = await operations.begin("stack.apply", "shop", held<void>().work);
    const finished: OperationId[] = [];
    for (let index = 0; index < 6; index += 1) {
      const { id } = await operations.begin("image.pull", `image-${index}`, () => Promise.resolve());
      await last(operations, id);
      finished.push(id);
    }
    await settled();
    const kept = [...finished.slice(3).toReversed(), running];
    assert.deepEqual(
      (await operations.list()).map((operation) => operation.id),
      kept,
    );
    await clock.advance(20_000);
    const again = await StoredOperations.open(store, clock, options);
    assert.deepEqual(
      (await again.list()).map((operation) => [operation.id, operation.status]),
      [[running, "interrupted"]],
    );
  });

  void test("an end that cannot be recorded is still told to whoever watches", async () => {
    const store = new MemoryStore();
    const logged: string[] = [];
    const operations = await StoredOperations.open(store, new TestClock(), {
      onUnexpected: (attempted) => logged.push(attempted),
    });
    const { work, gate } = held<void>();
    const { id } = await operations.begin("stack.apply", "shop", work);
    await store.close();
    gate.resolve();
    assert.equal((await last(operations, id))?.status, "succeeded");
    assert.deepEqual(logged, ["record the end of stack.apply of shop"]);
  });
});
