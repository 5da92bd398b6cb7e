import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { bootLimitMs } from "./eventually.ts";
import { machineTraceOf, traceOf } from "./host-trace.ts";
import { killInRounds, type Victim } from "./kill-rounds.ts";

/**
 * CROFT_KILL_ROUNDS_MICROVM sets how many (default 10: without KVM each takes 15 s and more), CROFT_SEED which (printed, so that a
 * failure can be repeated).
 */
const count = Number(process.env["CROFT_KILL_ROUNDS_MICROVM"] ?? 10);
const seed = Number(process.env["CROFT_SEED"] ?? Date.now() % 1_000_000);

/** Three microVMs beside two containers: one with a volume, one that each generation changes, one that stands alone. */
function stackFile(version: number): string {
  return `
stack = "five"
${busyboxImage}
[volume.data]

[network.back]
internal = true

[microvm.db]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "echo line >> /data/lines; exec busybox nc -ll -p 5432 -e busybox cat"]
networks   = ["back"]
volumes    = { data = "/data" }
health     = { tcp = 5432, interval = "500ms", timeout = "20s", retries = 20, start-period = "5m" }
update     = { healthy-within = "5m" }
stop-grace = "100ms"

[microvm.app]
image      = "box"
command    = ["/bin/busybox", "httpd", "-f", "-p", "80"]
env        = { VERSION = "${version}" }
networks   = ["back", "default"]
needs      = ["db"]
health     = { tcp = 80, interval = "500ms", timeout = "20s", retries = 20, start-period = "5m" }
update     = { order = "start-first", healthy-within = "5m" }
stop-grace = "100ms"

[microvm.alone]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
update     = { healthy-within = "5m" }
stop-grace = "100ms"

[container.cache]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
networks   = ["back"]
stop-grace = "100ms"

[container.web]
image      = "box"
command    = ["/bin/busybox", "httpd", "-f", "-p", "80"]
env        = { VERSION = "${version}" }
publish    = ["18390:80"]
stop-grace = "100ms"
`;
}

let daemon: TestDaemon;
let folder: string;
/** The boot that `alone` runs since, and which instance that was. */
let known: { readonly pid: number | undefined; readonly boot: string } | undefined;

before(async () => {
  daemon = await TestDaemon.start();
  folder = daemon.folder("five", { "one.toml": stackFile(1), "two.toml": stackFile(2) });
  const { code, stderr } = await daemon.croft(["up", join(folder, "one.toml"), "--yes"]);
  assert.equal(code, 0, stderr);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

test(`${count} rounds of kill -9 with microVMs, seed ${seed}`, { timeout: 3_600_000 }, async (context) => {
  const victim: Victim = {
    stack: "five",
    one: join(folder, "one.toml"),
    two: join(folder, "two.toml"),
    instances: 5,
    lasting: /^five\.(db|cache|alone)\./,
    lines: { volume: "five.data", file: "lines" },
    // From the first step of an order to well after a guest that boots has answered.
    longestMs: { change: 4000, down: 1000 },
    convergeLimitMs: bootLimitMs,
    leaks,
    same,
  };
  await killInRounds(daemon, victim, { count, seed, onProgress: (text) => context.diagnostic(text) });
});

test("nothing is left when the stack is gone", async () => {
  const { code, stderr } = await daemon.croft(["down", "five", "--yes"]);
  assert.equal(code, 0, stderr);
  leaks(0);
});

/** That QEMU is the same process does not show that its guest never began anew. */
async function same(): Promise<void> {
  const { pid } = await daemon.client.instances.get({ instance: "five/alone" });
  const path = "/proc/sys/kernel/random/boot_id";
  const { code, stdout: boot, stderr } = await daemon.croft(["exec", "five/alone", "busybox", "cat", path]);
  assert.equal(code, 0, stderr);
  if (known !== undefined && known.pid === pid) assert.equal(boot, known.boot, "the guest booted anew");
  known = { pid, boot };
}

function leaks(count: number): void {
  const whole = count > 0;
  const { monitors, namespaces, roots, cgroups, links } = traceOf(daemon.root);
  const machines = machineTraceOf(daemon.root);
  assert.deepEqual(
    { monitors, namespaces, roots, cgroups, links, ...machines, disks: disks(), unfinished: unfinished() },
    whole
      ? {
          monitors: 5,
          // Of the containers alone: machines have taps and disks instead.
          namespaces: 2,
          roots: 2,
          cgroups: 5,
          // Two bridges, two veths, four taps: one of the machines is on both networks.
          links: 8,
          machines: 3,
          servers: 1,
          taps: 4,
          // Four each, and one for the volume.
          sockets: 13,
          disks: 5,
          unfinished: [],
        }
      : {
          monitors: 0,
          namespaces: 0,
          roots: 0,
          cgroups: 0,
          links: 0,
          machines: 0,
          servers: 0,
          taps: 0,
          sockets: 0,
          disks: 0,
          unfinished: [],
        },
  );
}

/** What instances write, machines and containers alike. */
function disks(): number {
  return readdirSync(join(daemon.libDir, "pool", "roots")).length;
}

/** Saved memory of guests that is not whole. */
function unfinished(): readonly string[] {
  const names = readdirSync(join(daemon.libDir, "guest"), { recursive: true, encoding: "utf8" });
  return names.filter((name) => /\.new(?:-\d+)?$/.test(name));
}
