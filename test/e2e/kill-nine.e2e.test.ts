import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { traceOf } from "./host-trace.ts";
import { killInRounds, type Victim } from "./kill-rounds.ts";

/** CROFT_KILL_ROUNDS sets how many (default 200), CROFT_SEED which (printed, so that a failure can be repeated). */
const count = Number(process.env["CROFT_KILL_ROUNDS"] ?? 200);
const seed = Number(process.env["CROFT_SEED"] ?? Date.now() % 1_000_000);

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

before(async () => {
  daemon = await TestDaemon.start();
  folder = daemon.folder("ten", { "one.toml": stackFile(1), "two.toml": stackFile(2) });
  const { code, stderr } = await daemon.croft(["up", join(folder, "one.toml"), "--yes"]);
  assert.equal(code, 0, stderr);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

test(`${count} rounds of kill -9, seed ${seed}`, { timeout: 1_200_000 }, async (context) => {
  const victim: Victim = {
    stack: "ten",
    one: join(folder, "one.toml"),
    two: join(folder, "two.toml"),
    instances: 10,
    lasting: /^ten\.(db|cache|alone)\./,
    lines: { volume: "ten.data", file: "lines" },
    longestMs: { change: 900, down: 500 },
    convergeLimitMs: 60_000,
    leaks,
  };
  await killInRounds(daemon, victim, { count, seed, onProgress: (text) => context.diagnostic(text) });
});

function leaks(count: number): void {
  const { monitors, namespaces, roots, cgroups, links } = traceOf(daemon.root);
  // A bridge for each of two networks, a veth for each instance and network: four of ten are on both.
  const wires = count === 0 ? 0 : 2 + count + 4;
  assert.deepEqual(
    { monitors, namespaces, roots, cgroups, links },
    { monitors: count, namespaces: count, roots: count, cgroups: count, links: wires },
  );
}
