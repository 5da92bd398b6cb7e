import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import { backgroundCall } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import { TestClock } from "../base/test-clock.ts";
import { MemoryStore } from "../store/memory/store.ts";
import { SealedSecrets } from "./sealed-secrets.ts";
import { Secret } from "./secret.ts";

const password = Buffer.from("correct horse battery staple");

/** An empty store and a directory for the key, which goes away with it. */
async function fresh() {
  const directory = mkdtempSync(join(tmpdir(), "croft-secret-"));
  const keyPath = join(directory, "secret.key");
  const store = new MemoryStore();
  const clock = new TestClock(1_000);
  const call = backgroundCall(clock);
  return {
    keyPath,
    store,
    clock,
    call,
    secrets: await SealedSecrets.open(store, keyPath, call),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true }),
  };
}

void describe("secrets", () => {
  void test("a value comes back by its version, also after a restart", async () => {
    using home = await fresh();
    const { secrets, store, keyPath, call } = home;
    const version = await secrets.put("shop", "db-password", password, call);
    assert.match(version, /^[0-9a-f]{32}$/);
    const again = await SealedSecrets.open(store, keyPath, call);
    const secret = await again.resolve("shop", "db-password", version, call);
    assert.deepEqual(Buffer.from(secret.reveal()), password);
    assert.equal(secret.revealText(), "correct horse battery staple");
  });

  void test("nothing in the store tells the value, its digest, or that two secrets are equal", async () => {
    using home = await fresh();
    const { secrets, store, call } = home;
    const versions = [
      await secrets.put("shop", "a", password, call),
      await secrets.put("shop", "b", password, call),
      await secrets.put("blog", "a", password, call),
    ];
    assert.equal(new Set(versions).size, 3);
    const sealed = (await store.list<{ sealed: string }>("secret-version/", call)).map(({ value }) => value.sealed);
    assert.equal(new Set(sealed).size, 3);
    const everything = JSON.stringify(await store.list("", call));
    assert.ok(!everything.includes("horse") && !everything.includes(password.toString("base64").slice(0, 20)));
    for (const text of sealed) assert.ok(!Buffer.from(text, "base64").includes("horse"));
  });

  void test("putting the same value again writes nothing and is the same version", async () => {
    using home = await fresh();
    const { secrets, store, call } = home;
    const version = await secrets.put("shop", "a", password, call);
    const before = await store.list("", call);
    assert.equal(await secrets.put("shop", "a", password, call), version);
    assert.equal(secrets.versionOf("shop", "a", password), version);
    assert.deepEqual(await store.list("", call), before);
  });

  void test("a generated secret is made once, also when many ask at once, and long enough", async () => {
    using home = await fresh();
    const { secrets, call } = home;
    const versions = await Promise.all(Array.from({ length: 20 }, () => secrets.generate("shop", "a", 48, call)));
    assert.equal(new Set(versions).size, 1);
    const [version = ""] = versions;
    assert.match((await secrets.resolve("shop", "a", version, call)).revealText(), /^[A-Za-z0-9]{48}$/);
    assert.deepEqual(
      (await secrets.list("shop", call)).map((facts) => facts.versions),
      [1],
    );
    const rotated = await secrets.rotate("shop", "a", 48, call);
    assert.notEqual(rotated, version);
    assert.equal(await secrets.generate("shop", "a", 32, call), rotated);
    assert.equal(await secrets.current("shop", "a", call), rotated);
  });

  void test("a list has names and versions, and no values", async () => {
    using home = await fresh();
    const { secrets, clock, call } = home;
    await secrets.put("shop", "a", password, call);
    await clock.advance(500);
    const version = await secrets.put("shop", "a", Buffer.from("two"), call);
    await secrets.put("shop-2", "a", password, call);
    assert.deepEqual(await secrets.list("shop", call), [
      { stack: "shop", name: "a", version, createdMs: 1_500, versions: 2 },
    ]);
    assert.deepEqual(
      (await secrets.list(undefined, call)).map((facts) => facts.stack),
      ["shop", "shop-2"],
    );
  });

  void test("pruning keeps the newest and what generations name; removing keeps nothing", async () => {
    using home = await fresh();
    const { secrets, store, call } = home;
    const [first = "", second = "", third = "", fourth = ""] = await Array.fromAsync(["1", "2", "3", "4"], (value) =>
      secrets.put("shop", "a", Buffer.from(value), call),
    );
    const other = await secrets.put("shop-2", "a", password, call);
    await secrets.prune("shop", new Map([["a", new Set([second])]]), call);
    for (const version of [second, fourth]) await secrets.resolve("shop", "a", version, call);
    for (const version of [first, third]) {
      await assert.rejects(secrets.resolve("shop", "a", version, call), (thrown) => isFault(thrown, "not-found"));
    }
    await secrets.remove("shop", "a", call);
    await secrets.remove("shop", "a", call);
    assert.deepEqual(await secrets.list("shop", call), []);
    assert.deepEqual(await store.list("secret-version/shop/", call), []);
    await secrets.resolve("shop-2", "a", other, call);
  });

  void test("puts, removals and prunings at once never leave a secret that names no value", async () => {
    using home = await fresh();
    const { secrets, call } = home;
    await Promise.all(
      Array.from({ length: 60 }, (_, index) =>
        index % 5 === 4
          ? secrets.remove("shop", "a", call)
          : index % 5 === 2
            ? secrets.prune("shop", new Map(), call)
            : secrets.put("shop", "a", Buffer.from(`value ${index % 7}`), call),
      ),
    );
    for (const { version } of await secrets.list("shop", call)) await secrets.resolve("shop", "a", version, call);
  });

  void test("a sealed value moved to another name, or changed, is refused as corrupt", async () => {
    using home = await fresh();
    const { secrets, store, call } = home;
    const version = await secrets.put("shop", "a", password, call);
    const sealed = await store.get<{ sealed: string }>(`secret-version/shop/a/${version}`, call);
    assert.ok(sealed !== undefined);
    const bytes = Buffer.from(sealed.value.sealed, "base64");
    const changes = Array.from({ length: bytes.length }, (_, index) => {
      const changed = Buffer.from(bytes);
      changed[index] = (changed[index] ?? 0) ^ 1;
      return changed;
    });
    for (const changed of [...changes, Buffer.alloc(0), bytes.subarray(0, 27)]) {
      await store.put(`secret-version/shop/b/${version}`, { sealed: changed.toString("base64") }, "any", call);
      await assert.rejects(secrets.resolve("shop", "b", version, call), (thrown) => isFault(thrown, "corrupt"));
    }
    await store.put(`secret-version/shop/b/${version}`, sealed.value, "any", call);
    await assert.rejects(secrets.resolve("shop", "b", version, call), (thrown) => isFault(thrown, "corrupt"));
  });

  void test("names, sizes and versions that cannot be are refused, without a value in any refusal", async () => {
    using home = await fresh();
    const { secrets, call } = home;
    const refusals = [
      secrets.put("../etc", "a", password, call),
      secrets.put("shop", "a/b", password, call),
      secrets.put("shop", "a", Buffer.alloc(0), call),
      secrets.put("shop", "a", Buffer.alloc(512 * 1024 + 1, "horse"), call),
      secrets.generate("shop", "a", 0, call),
      secrets.rotate("shop", "a", 7, call),
      secrets.rotate("shop", "a", 1e9, call),
      secrets.current("Shop", "a", call),
    ];
    for (const refusal of refusals) {
      await assert.rejects(refusal, (thrown) => isFault(thrown, "invalid") && !inspect(thrown).includes("horse"));
    }
    for (const version of ["", "../x", "0".repeat(32)]) {
      await assert.rejects(secrets.resolve("shop", "a", version, call), (thrown) => isFault(thrown, "not-found"));
    }
  });
});

void describe("the key of secrets", () => {
  void test("is private, and made once", async () => {
    using home = await fresh();
    const { keyPath, store, call } = home;
    assert.equal(statSync(keyPath).mode & 0o777, 0o600);
    const before = readFileSync(keyPath);
    await SealedSecrets.open(store, keyPath, call);
    assert.deepEqual(readFileSync(keyPath), before);
  });

  void test("is refused when others can read it", async () => {
    using home = await fresh();
    const { keyPath, store, call } = home;
    for (const mode of [0o640, 0o604, 0o660]) {
      chmodSync(keyPath, mode);
      await assert.rejects(SealedSecrets.open(store, keyPath, call), (thrown) => isFault(thrown, "forbidden"));
    }
  });

  void test("that is gone or another one is said, and never replaced", async () => {
    using home = await fresh();
    const { keyPath, store, call } = home;
    rmSync(keyPath);
    await assert.rejects(SealedSecrets.open(store, keyPath, call), (thrown) => isFault(thrown, "corrupt"));
    assert.ok(!existsSync(keyPath));
    await SealedSecrets.open(new MemoryStore(), keyPath, call);
    await assert.rejects(SealedSecrets.open(store, keyPath, call), (thrown) => isFault(thrown, "corrupt"));
  });

  void test("that is damaged is said, without telling what it holds", async () => {
    using home = await fresh();
    const { keyPath, store, call } = home;
    const whole = readFileSync(keyPath, "utf8");
    for (const text of ["", whole.slice(0, 40), whole.replace("croft", "craft"), `${whole}${whole}`]) {
      writeFileSync(keyPath, text);
      const leaked = (thrown: unknown): boolean => whole.length > 30 && inspect(thrown).includes(whole.slice(20, 40));
      await assert.rejects(
        SealedSecrets.open(store, keyPath, call),
        (thrown) => isFault(thrown, "corrupt") && !leaked(thrown),
      );
    }
  });
});

void test("a secret shows itself to nobody who does not ask", () => {
  const secret = new Secret(password);
  const shown = [
    String(secret),
    [secret].join(""),
    JSON.stringify({ secret }),
    inspect({ deep: { secret } }, { depth: 9, showHidden: true }),
    inspect(new Fault("failed", `with ${String(secret)}`, { cause: secret })),
    Object.values(secret).join(""),
    JSON.stringify(Object.getOwnPropertyNames(secret)),
  ];
  for (const text of shown) assert.ok(!text.includes("horse"), text);
  assert.equal(shown[0], "[secret]");
});
