import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { TestClock } from "../../base/test-clock.ts";
import { SqliteEventBus } from "../../event/sqlite/event-bus.ts";
import { Database } from "./database.ts";
import { SqliteStore } from "./store.ts";

const call = backgroundCall();

/** A directory that goes away with the test, and where a database would be in it. */
function place() {
  const directory = mkdtempSync(join(tmpdir(), "croft-database-"));
  return { path: join(directory, "croft.db"), [Symbol.dispose]: () => rmSync(directory, { recursive: true }) };
}

function refuses(path: string, reason: Parameters<typeof isFault>[1], words: RegExp): void {
  assert.throws(
    () => Database.open(path),
    (thrown) => isFault(thrown, reason) && words.test(thrown.message) && thrown.message.includes(path),
  );
}

void describe("the database", () => {
  void test("keeps entries, revisions, events and sequences over a restart", async () => {
    using at = place();
    {
      using database = Database.open(at.path);
      const store = new SqliteStore(database);
      const bus = new SqliteEventBus(database, new TestClock());
      await store.put("a", 1, "absent", call);
      await store.put("b", 1, "absent", call);
      await store.remove("b", "any", call);
      await bus.publish({ kind: "made", subject: "a", message: "Made." });
    }
    using database = Database.open(at.path);
    const store = new SqliteStore(database);
    const bus = new SqliteEventBus(database, new TestClock());
    assert.deepEqual(await store.list("", call), [{ key: "a", value: 1, revision: 1 }]);
    assert.equal(await store.put("c", 1, "absent", call), 4, "a removed key's revision is not given out again");
    assert.equal((await bus.publish({ kind: "made", subject: "c", message: "Made." })).sequence, 2);
  });

  void test("and its log are for their owner alone", async () => {
    using at = place();
    using database = Database.open(at.path);
    await new SqliteStore(database).put("a", 1, "absent", call);
    assert.equal(statSync(at.path).mode & 0o777, 0o600);
    assert.equal(statSync(`${at.path}-wal`).mode & 0o777, 0o600);
    assert.ok(!existsSync(`${at.path}-shm`));
  });

  void test("a write that throws undoes itself and nothing else of its transaction", async () => {
    using at = place();
    using database = Database.open(at.path);
    const insert = database.prepare("insert into entry values (?, '1', ?)");
    const outcomes = await Promise.allSettled([
      database.write("first", () => insert.run("a", 1)),
      database.write("second", () => {
        insert.run("b", 2);
        throw new Fault("conflict", "no");
      }),
      database.write("third", () => insert.run("c", 1)),
      database.write("fourth", () => insert.run("d", 4)),
    ]);
    assert.deepEqual(
      outcomes.map((outcome) => outcome.status),
      ["fulfilled", "rejected", "rejected", "fulfilled"],
    );
    const keys = database.prepare("select key from entry order by key").all();
    assert.deepEqual(
      keys.map((row) => row["key"]),
      ["a", "d"],
    );
  });

  void test("a read never sees what is not yet committed", async () => {
    using at = place();
    using database = Database.open(at.path);
    const store = new SqliteStore(database);
    const putting = store.put("a", 1, "absent", call);
    assert.equal(await store.get("a", call), undefined);
    await putting;
    assert.equal((await store.get("a", call))?.value, 1);
  });

  void test("closing commits what was asked for, and refuses what comes after", async () => {
    using at = place();
    const database = Database.open(at.path);
    const store = new SqliteStore(database);
    const putting = Array.from({ length: 2_000 }, (_, index) => store.put(`k/${index}`, index, "absent", call));
    database.close();
    assert.equal((await Promise.all(putting)).length, 2_000);
    await assert.rejects(store.put("late", 1, "any", call), (thrown) => isFault(thrown, "unavailable"));
    await assert.rejects(store.get("late", call), (thrown) => isFault(thrown, "unavailable"));
    using again = Database.open(at.path);
    assert.equal((await new SqliteStore(again).list("k/", call)).length, 2_000);
  });

  void test("of a newer release is refused and left as it was", () => {
    using at = place();
    Database.open(at.path).close();
    const newer = new DatabaseSync(at.path);
    newer.exec("pragma user_version = 999");
    newer.close();
    const before = readFileSync(at.path);
    refuses(at.path, "unsupported", /newer release/);
    assert.deepEqual(readFileSync(at.path), before);
  });

  void test("that is something else is refused and left as it was", () => {
    using at = place();
    writeFileSync(at.path, "This is not a database, but somebody may need it.\n".repeat(100));
    const before = readFileSync(at.path);
    refuses(at.path, "corrupt", /not a database/);
    assert.deepEqual(readFileSync(at.path), before);
  });

  void test("that is damaged says so, and never that nothing is there", async () => {
    using at = place();
    {
      using database = Database.open(at.path);
      const store = new SqliteStore(database);
      await Promise.all(
        Array.from({ length: 500 }, (_, index) => store.put(`k/${index}`, "x".repeat(200), "any", call)),
      );
    }
    const bytes = readFileSync(at.path);
    bytes.fill(0xa5, 4096);
    writeFileSync(at.path, bytes);
    const failed = async (): Promise<unknown> => {
      using database = Database.open(at.path);
      return new SqliteStore(database).list("k/", call);
    };
    await assert.rejects(failed(), (thrown) => isFault(thrown, "corrupt") && thrown.hint !== undefined);
  });

  void test("in a directory that is not there cannot be opened, and says which", () => {
    using at = place();
    assert.throws(() => Database.open(join(at.path, "none", "croft.db")), /none\/croft\.db/);
  });

  void test("that another process holds is a conflict that names the process", async () => {
    using at = place();
    const module = new URL("database.ts", import.meta.url).href;
    const script = `
      const { Database } = await import(${JSON.stringify(module)});
      Database.open(process.argv[1]);
      console.log("open");
      setInterval(() => {}, 1e6);
    `;
    const holder = spawn(process.execPath, ["--input-type=module", "--eval", script, at.path], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      await once(holder.stdout, "data");
      assert.throws(
        () => Database.open(at.path),
        (thrown) =>
          isFault(thrown, "conflict") &&
          thrown.detail["holder"] === String(holder.pid) &&
          thrown.message.includes(`process ${holder.pid}`),
      );
    } finally {
      const gone = once(holder, "exit");
      holder.kill("SIGKILL");
      await gone;
    }
    Database.open(at.path).close();
  });
});
