import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { checkout, TestDaemon } from "./daemon.ts";

/** The examples as they are, with the one word changed. Their images are built here, once, from Debian packages. */
let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start();
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

/**
 * A copy of an example as microVMs. Its port is another one, as somebody may be looking at the example itself, and there is
 * patience for guests that boot without KVM on a busy machine; nothing else differs but the word.
 */
function copyOf(example: string, port: number, publishedPort: number): string {
  const folder = join(daemon.root, "stacks", example);
  cpSync(join(checkout, "examples", example), folder, { recursive: true });
  const file = join(folder, "croft.toml");
  const text = readFileSync(file, "utf8");
  const changed = text
    .replaceAll(/^\[container\./gm, "[microvm.")
    .replaceAll(`"${port}:`, `"${publishedPort}:`)
    .replaceAll(
      /^(health +=.*interval = "2s")(?:, retries = \d+)?/gm,
      '$1, timeout = "30s", retries = 20, start-period = "10m"',
    )
    .replaceAll(/^update +=.*\n/gm, (line) => (line.includes("start-first") ? "" : line))
    .replaceAll(/^health +=.*$/gm, (line) => `${line}\nupdate = { order = "start-first", healthy-within = "10m" }`);
  assert.ok(!changed.includes("[container.") && changed.includes(`"${publishedPort}:`));
  writeFileSync(file, changed);
  return folder;
}

async function up(folder: string): Promise<void> {
  const { code, stdout, stderr } = await daemon.croft(["up", "--yes"], { cwd: folder, limitMs: 1_200_000 });
  assert.equal(code, 0, stdout + stderr);
}

/** All of its instances are microVMs, and healthy. */
async function allWell(stack: string, count: number): Promise<void> {
  const { instances } = await daemon.client.instances.list({ stack });
  assert.deepEqual(
    instances.map(({ kind, health }) => `${kind} ${health}`),
    Array.from({ length: count }, () => "microvm healthy"),
  );
}

async function page(url: string): Promise<string> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(60_000) });
  assert.equal(answer.status, 200, url);
  return (await answer.text()).trim();
}

test("hello: a page in front, and a greeting from each replica behind it", { timeout: 1_800_000 }, async () => {
  await up(copyOf("hello", 8080, 18_480));
  await allWell("hello", 3);
  assert.match(await page("http://127.0.0.1:18480/"), /<h1>Your machine, your cloud/);
  assert.match(await page("http://127.0.0.1:18480/greeting"), /^Hello from greeter-[12]\.$/);
  const kernel = await daemon.croft(["exec", "hello/front", "uname", "-r"]);
  assert.notEqual(kernel.stdout.trim(), release(), kernel.stderr);
  const { code, stderr } = await daemon.croft(["down", "hello"]);
  assert.equal(code, 0, stderr);
});

test(
  "shop: orders in PostgreSQL, visits in Redis, and the orders outlive their machine",
  { timeout: 1_800_000 },
  async () => {
    const folder = copyOf("shop", 8081, 18_481);
    await up(folder);
    await allWell("shop", 5);
    assert.match(await page("http://127.0.0.1:18481/"), /^Visit 1, order 1, served by app-[12]\.$/);
    assert.match(await page("http://127.0.0.1:18481/"), /^Visit 2, order 2, served by app-[12]\.$/);
    // The database is on a network with no way out, and the web server is not on it.
    const apart = await daemon.croft(["exec", "shop/web", "sh", "-c", "getent hosts db || echo nobody"]);
    assert.equal(apart.stdout, "nobody\n", apart.stderr);
    const file = join(folder, "croft.toml");
    writeFileSync(file, readFileSync(file, "utf8").replace('memory   = "512MiB"', 'memory   = "768MiB"'));
    const before = await daemon.client.instances.get({ instance: "shop/db" });
    await up(folder);
    assert.notEqual((await daemon.client.instances.get({ instance: "shop/db" })).pid, before.pid, "another machine");
    await allWell("shop", 5);
    assert.match(await page("http://127.0.0.1:18481/"), /^Visit 3, order 3, served by app-[12]\.$/);
  },
);
