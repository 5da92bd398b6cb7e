import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { traceOf } from "./host-trace.ts";

/**
 * `kill -9` of the daemon at random moments during up, update, rollback and down of a stack of ten. After each restart it
 * must converge; what needed no change must be the same process; nothing may be left over and nothing lost.
 *
 * CROFT_KILL_ROUNDS sets how many (default 200), CROFT_SEED which (printed, so that a failure can be repeated).
 */
const rounds = Number(process.env["CROFT_KILL_ROUNDS"] ?? 200);
const seed = Number(process.env["CROFT_SEED"] ?? Date.now() % 1_000_000);
const convergeLimitMs = 60_000;

/** Ten instances: a database with a volume, a cache, what needs them, replicas, a published port, and some that stand alone. */
function stackFile(version: number): string {
  return `
stack = "ten"
${busyboxImage}
[volume.data]

[network.back]
internal = true

[container.db]
image    = "box"
command  = ["/bin/busybox", "sh", "-c", "echo line >> /data/lines; exec busybox nc -ll -p 5432 -e busybox cat"]
networks = ["back"]
volumes  = { data = "/data" }
health   = { tcp = 5432, interval = "500ms" }
stop-grace = "100ms"

[container.cache]
image    = "box"
command  = ["/bin/busybox", "sleep", "1000000"]
networks = ["back"]
stop-grace = "100ms"

[container.app]
image    = "box"
command  = ["/bin/busybox", "httpd", "-f", "-p", "80"]
env      = { VERSION = "${version}" }
replicas = 4
networks = ["back", "default"]
needs    = ["db", "cache"]
health   = { tcp = 80, interval = "500ms" }
update   = { order = "start-first" }
stop-grace = "100ms"

[container.web]
image    = "box"
command  = ["/bin/busybox", "httpd", "-f", "-p", "80"]
env      = { VERSION = "${version}" }
needs    = ["app"]
publish  = ["18099:80"]
stop-grace = "100ms"

[container.alone]
image    = "box"
command  = ["/bin/busybox", "sleep", "1000000"]
replicas = 3
stop-grace = "100ms"
`;
}

let daemon: TestDaemon;
let folder: string;
let random: () => number;

before(async () => {
  daemon = await TestDaemon.start();
  folder = daemon.folder("ten", { "one.toml": stackFile(1), "two.toml": stackFile(2) });
  random = generator(seed);
  const { code, stderr } = await daemon.croft(["up", join(folder, "one.toml"), "--yes"]);
  assert.equal(code, 0, stderr);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

test(`${rounds} rounds of kill -9, seed ${seed}`, { timeout: 1_200_000 }, async (context) => {
  let lines = dataLines();
  for (let round = 1; round <= rounds; round += 1) {
    const before = await instances();
    const verb = pick(["up one", "up two", "up one", "up two", "rollback", "nothing", "down"]);
    const delayMs = Math.floor(random() * (verb === "down" ? 500 : 900));
    const done = command(verb);
    await sleep(delayMs);
    await daemon.kill9();
    await daemon.start();
    // The command line follows through a restart: it ends when what it asked for has ended.
    await done;
    const now = await converged(`round ${round}: ${verb}, killed after ${delayMs} ms (seed ${seed})`);

    if (verb !== "down") {
      for (const [id, was] of before) {
        const is = now.get(id);
        if (is === undefined) continue;
        assert.deepEqual(is, was, `round ${round} (${verb}, ${delayMs} ms): ${id} was touched (seed ${seed})`);
      }
      for (const [id] of before) {
        if (/^ten\.(db|cache|alone)\./.test(id)) assert.ok(now.has(id), `round ${round}: ${id} is gone`);
      }
    }
    await withoutLeaks(`round ${round}: ${verb}, killed after ${delayMs} ms (seed ${seed})`, now.size);
    const linesNow = now.size === 0 ? lines : dataLines();
    assert.ok(linesNow >= lines, `round ${round}: the volume lost data`);
    lines = linesNow;
    if (now.size === 0) {
      const { code, stderr } = await daemon.croft(["up", join(folder, "one.toml"), "--yes"]);
      assert.equal(code, 0, `round ${round}: ${stderr}`);
    }
    if (round % 20 === 0) context.diagnostic(`${round} rounds`);
  }
});

function command(verb: string): Promise<unknown> {
  switch (verb) {
    case "up one":
      return daemon.croft(["up", join(folder, "one.toml"), "--yes"]);
    case "up two":
      return daemon.croft(["up", join(folder, "two.toml"), "--yes"]);
    case "rollback":
      return daemon.croft(["rollback", "ten", "--yes"]);
    case "down":
      return daemon.croft(["down", "ten", "--yes"]);
    default:
      return Promise.resolve();
  }
}

/** Instance id → what must stay the same while nothing asks for a change. */
async function instances(): Promise<
  Map<string, { readonly pid: number | undefined; readonly started: string | undefined }>
> {
  const { instances } = await daemon.client.instances.list({ stack: "ten" });
  return new Map(instances.map(({ id, pid, started }) => [id, { pid, started }]));
}

/** Resolves when the stack is whole (healthy, ten running) or wholly gone. */
async function converged(what: string): ReturnType<typeof instances> {
  const untilMs = Date.now() + convergeLimitMs;
  for (;;) {
    const { stacks } = await daemon.client.stacks.list();
    const stack = stacks.find(({ name }) => name === "ten");
    const known = await instances();
    if (stack === undefined && known.size === 0) return known;
    if (stack?.status === "healthy" && stack.instancesRunning === 10 && known.size === 10) return known;
    if (Date.now() > untilMs) {
      const { instances: shown } = await daemon.client.instances.list({ stack: "ten", all: true });
      assert.fail(`${what}: not converged: ${JSON.stringify({ stack, shown })}\n${daemon.log().slice(-2000)}`);
    }
    await sleep(50);
  }
}

/** What has converged is looked at once more when it is not clean: the last of it may be on its way out. */
async function withoutLeaks(what: string, count: number): Promise<void> {
  const untilMs = Date.now() + convergeLimitMs;
  for (;;) {
    try {
      return leaks(what, count);
    } catch (thrown) {
      if (Date.now() > untilMs) throw thrown;
    }
    await sleep(50);
  }
}

function leaks(what: string, count: number): void {
  const trace = traceOf(daemon.root);
  const networks = count === 0 ? 0 : 2;
  assert.deepEqual(
    { monitors: trace.monitors, namespaces: trace.namespaces, roots: trace.roots, cgroups: trace.cgroups },
    { monitors: count, namespaces: count, roots: count, cgroups: count },
    `${what}: more or less than ${count} instances on the host`,
  );
  // A bridge for each network, a veth for each instance and network: four of ten are on both.
  assert.equal(trace.links, count === 0 ? 0 : networks + count + 4, `${what}: links`);
}

function dataLines(): number {
  return readFileSync(join(volumePath(), "lines"), "utf8").split("\n").length;
}

function volumePath(): string {
  return join(daemon.root, "lib", "pool", "volumes", "ten.data", "data");
}

function pick<Value>(from: readonly [Value, ...Value[]]): Value {
  return from[Math.floor(random() * from.length)] ?? from[0];
}

/** mulberry32: small, seeded, good enough to choose moments. */
function generator(from: number): () => number {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
