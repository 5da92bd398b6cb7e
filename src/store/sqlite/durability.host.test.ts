import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { backgroundCall, systemClock } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { SqliteEventBus } from "../../event/sqlite/event-bus.ts";
import { Database } from "./database.ts";
import { SqliteStore } from "./store.ts";

const call = backgroundCall();
const fixture = new URL("writer-fixture.ts", import.meta.url).pathname;

/** What a writer said before it ended. */
interface Said {
  readonly puts: readonly number[];
  readonly events: readonly number[];
  readonly faults: readonly string[];
}

function directory() {
  const path = mkdtempSync(join(tmpdir(), "croft-durability-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

/**
 * Starts a writer, which `until` ends. What `until` returns is what counts as said; otherwise everything does. A line cut
 * off by the writer's death was not acknowledged to us.
 */
async function write(
  path: string,
  first: number,
  burst: number,
  bursts: number,
  until: (writer: ChildProcess, said: () => string) => Promise<string | undefined>,
): Promise<Said> {
  const writer = spawn(process.execPath, [fixture, path, String(first), String(burst), String(bursts)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  writer.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  const closed = once(writer, "close");
  await once(writer.stdout, "data");
  const counted = await until(writer, () => text);
  await closed;
  const said = counted ?? text;
  const lines = said.slice(0, said.lastIndexOf("\n")).split("\n");
  const of = (word: string): string[] =>
    lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1));
  return { puts: of("put").map(Number), events: of("event").map(Number), faults: of("fault") };
}

/** Opens the database and checks that it holds everything acknowledged, whole, and events without a gap. */
async function check(path: string, puts: ReadonlySet<number>, lastEvent: number): Promise<void> {
  using database = Database.open(path);
  const store = new SqliteStore(database);
  const entries = await store.list<string>("k/", call);
  const revisions = entries.map((entry) => entry.revision).sort((left, right) => left - right);
  assert.deepEqual(
    revisions,
    [...revisions.keys()].map((index) => index + 1),
    "revisions have no gap",
  );
  const found = new Set<number>();
  for (const { key, value } of entries) {
    const number = Number(key.slice(2));
    assert.equal(value, `${number} `.repeat(1 + (number % 400)));
    found.add(number);
  }
  for (const number of puts) assert.ok(found.has(number), `the acknowledged entry k/${number} is there`);
  const sequences = database.prepare("select sequence from event order by sequence").all();
  assert.deepEqual(
    sequences.map((row) => row["sequence"]),
    Array.from({ length: sequences.length }, (_, index) => index + 1),
    "sequences have no gap",
  );
  assert.ok(sequences.length >= lastEvent, `event ${lastEvent} was acknowledged, ${sequences.length} are there`);
  assert.equal(database.prepare("pragma integrity_check").get()?.["integrity_check"], "ok");
}

function pause(delayMs: number): Promise<void> {
  return systemClock.sleep(delayMs);
}

void describe("durability of the database", () => {
  void test("whatever was acknowledged is there after kill -9, in 60 rounds on one file", async () => {
    using at = directory();
    const path = join(at.path, "croft.db");
    const puts = new Set<number>();
    let lastEvent = 0;
    for (let round = 0; round < 60; round += 1) {
      const said = await write(path, round * 1e6, 1 + (round % 9), 1e6, async (writer) => {
        await pause(Math.random() * 60);
        writer.kill("SIGKILL");
        return undefined;
      });
      assert.deepEqual(said.faults, []);
      for (const number of said.puts) puts.add(number);
      lastEvent = Math.max(lastEvent, ...said.events);
      if (round % 10 === 9) await check(path, puts, lastEvent);
    }
    assert.ok(puts.size > 500, `${puts.size} acknowledged writes were put to the test`);
  });

  void test("whatever was acknowledged is there after a power cut, in 10 tries", async () => {
    using at = directory();
    const image = join(at.path, "disk.xfs");
    const mounted = join(at.path, "mounted");
    mkdirSync(mounted);
    let acknowledged = 0;
    for (let round = 0; round < 10; round += 1) {
      writeFileSync(image, "");
      truncateSync(image, 400 * 2 ** 20);
      execFileSync("mkfs.xfs", ["-q", image]);
      execFileSync("mount", ["-o", "loop", image, mounted]);
      try {
        const path = join(mounted, "croft.db");
        const said = await write(path, 0, 1 + round, 1e6, async (writer, said) => {
          await pause(50 + Math.random() * 250);
          // Only what was said before the cut counts: an fsync that is under way when XFS shuts down returns success
          // though its data is gone (strace shows it), while after a real cut nobody is there to be told.
          const before = said();
          // The file system stops as if the power went: nothing that was not flushed reaches the disk any more.
          execFileSync("xfs_io", ["-x", "-c", "shutdown", mounted]);
          await pause(20);
          writer.kill("SIGKILL");
          return before;
        });
        execFileSync("umount", [mounted]);
        execFileSync("mount", ["-o", "loop", image, mounted]);
        await check(path, new Set(said.puts), Math.max(0, ...said.events));
        acknowledged += said.puts.length;
      } finally {
        execFileSync("umount", [mounted]);
      }
    }
    assert.ok(acknowledged > 500, `${acknowledged} acknowledged writes were put to the test`);
  });

  void test("a full disk refuses writes as exhausted, keeps what it has, and goes on once there is space", async () => {
    using at = directory();
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", at.path]);
    try {
      const path = join(at.path, "croft.db");
      const ballast = join(at.path, "ballast");
      writeFileSync(ballast, Buffer.alloc(2 ** 20));
      const puts = new Set<number>();
      {
        using database = Database.open(path);
        const store = new SqliteStore(database);
        const bus = new SqliteEventBus(database, systemClock);
        const put = (number: number): Promise<number> =>
          store.put(`k/${number}`, `${number} `.repeat(1 + (number % 400)), "absent", call);
        let refusals = 0;
        for (let number = 1; refusals < 20; number += 1) {
          try {
            await put(number);
            puts.add(number);
          } catch (thrown) {
            assert.ok(isFault(thrown, "exhausted"), String(thrown));
            assert.match(String(thrown.hint), /space/);
            refusals += 1;
          }
        }
        assert.ok(puts.size > 100);
        assert.equal((await store.list("k/", call)).length, puts.size, "reading goes on");
        await assert.rejects(bus.publish({ kind: "big", subject: "disk", message: "x".repeat(2 ** 20) }), (thrown) =>
          isFault(thrown, "exhausted"),
        );
        unlinkSync(ballast);
        await put(1e6);
        puts.add(1e6);
      }
      await check(path, puts, 0);
    } finally {
      execFileSync("umount", [at.path]);
    }
  });

  void test("a read-only disk is said", () => {
    using at = directory();
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", at.path]);
    try {
      const path = join(at.path, "croft.db");
      Database.open(path).close();
      execFileSync("mount", ["-o", "remount,ro", at.path]);
      assert.throws(
        () => Database.open(path),
        (thrown) => isFault(thrown) && /read-only/.test(thrown.message) && thrown.message.includes(path),
      );
    } finally {
      execFileSync("umount", [at.path]);
    }
  });

  void test("two hundred writes at once share a few flushes, and one alone has its own", async () => {
    using at = directory();
    const flushes = (burst: number, bursts: number): number => {
      const trace = join(at.path, `trace-${burst}`);
      const writer = [process.execPath, fixture, join(at.path, `${burst}.db`), "0", String(burst), String(bursts)];
      execFileSync("strace", ["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", trace, ...writer], { stdio: "ignore" });
      return readFileSync(trace, "utf8")
        .split("\n")
        .filter((line) => /f(data)?sync\(\d/.test(line)).length;
    };
    const idle = flushes(0, 1);
    const together = flushes(100, 1) - idle;
    assert.ok(together >= 1 && together <= 6, `${together} flushes for 200 writes at once`);
    const apart = flushes(1, 50) - idle;
    assert.ok(apart >= 50, `${apart} flushes for 50 pairs of writes, each acknowledged before the next`);
  });
});
