import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { checkout, TestDaemon } from "./daemon.ts";

/** The examples as they are, and with one word changed. Their images are built here, once, from Debian packages. */
let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start();
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

/** A copy of an example whose port is another one, as somebody may be looking at the example itself. */
function copyOf(example: string, kind: "container" | "microvm", port: number, publishedPort: number): string {
  const folder = join(daemon.root, "stacks", kind, example);
  cpSync(join(checkout, "examples", example), folder, { recursive: true });
  const file = join(folder, "croft.toml");
  const text = readFileSync(file, "utf8").replaceAll(`"${port}:`, `"${publishedPort}:`);
  assert.ok(text.includes(`"${publishedPort}:`));
  writeFileSync(file, kind === "container" ? text : asMicrovms(text));
  return folder;
}

function asMicrovms(text: string): string {
  const changed = text.replaceAll(/^\[container\./gm, "[microvm.");
  assert.ok(!changed.includes("[container."));
  return changed;
}

const limit = { timeout: 1_800_000 };

async function up(folder: string): Promise<void> {
  const { code, stdout, stderr } = await daemon.croft(["up", "--yes"], { cwd: folder, limitMs: 1_200_000 });
  assert.equal(code, 0, stdout + stderr);
}

/** All of its instances are of the kind, and healthy. */
async function allWell(stack: string, expected: string, count: number): Promise<void> {
  const { instances } = await daemon.client.instances.list({ stack });
  assert.deepEqual(
    instances.map(({ kind, health }) => `${kind} ${health}`),
    Array.from({ length: count }, () => `${expected} healthy`),
  );
}

async function page(url: string): Promise<string> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(60_000) });
  assert.equal(answer.status, 200, url);
  return (await answer.text()).trim();
}

async function down(stack: string): Promise<void> {
  const { code, stderr } = await daemon.croft(["down", stack, "--volumes", "--yes"]);
  assert.equal(code, 0, stderr);
}

for (const kind of ["container", "microvm"] as const) {
  test(`hello as ${kind}: a page in front, and a greeting from each replica behind it`, limit, async () => {
    await up(copyOf("hello", kind, 8080, 18_480));
    await allWell("hello", kind, 3);
    assert.match(await page("http://127.0.0.1:18480/"), /<h1>Your machine, your cloud/);
    assert.match(await page("http://127.0.0.1:18480/greeting"), /^Hello from greeter-[12]\.$/);
    const kernel = await daemon.croft(["exec", "hello/front", "uname", "-r"]);
    assert.equal(kernel.stdout.trim() === release(), kind === "container", kernel.stderr);
    await down("hello");
  });

  test(`shop as ${kind}: orders in PostgreSQL, visits in Redis, and the orders outlive a change`, limit, async () => {
    const folder = copyOf("shop", kind, 8081, 18_481);
    await up(folder);
    await allWell("shop", kind, 5);
    assert.match(await page("http://127.0.0.1:18481/"), /^Visit 1, order 1, served by app-[12]\.$/);
    assert.match(await page("http://127.0.0.1:18481/"), /^Visit 2, order 2, served by app-[12]\.$/);
    // The database is on a network with no way out, and the web server is not on it.
    const apart = await daemon.croft(["exec", "shop/web", "sh", "-c", "getent hosts db || echo nobody"]);
    assert.equal(apart.stdout, "nobody\n", apart.stderr);
    const file = join(folder, "croft.toml");
    writeFileSync(file, readFileSync(file, "utf8").replace('memory   = "512MiB"', 'memory   = "768MiB"'));
    const before = await daemon.client.instances.get({ instance: "shop/db" });
    await up(folder);
    const after = await daemon.client.instances.get({ instance: "shop/db" });
    // A guest may be given more while it runs, as far as it was made larger.
    if (kind === "container") assert.equal(after.pid, before.pid);
    await allWell("shop", kind, 5);
    assert.match(await page("http://127.0.0.1:18481/"), /^Visit 3, order 3, served by app-[12]\.$/);
    await down("shop");
  });
}
