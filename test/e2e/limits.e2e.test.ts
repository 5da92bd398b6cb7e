import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { eventually } from "./eventually.ts";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const mib = 2 ** 20;

function stackFile({
  memory = "64MiB",
  cpus = 0.2,
}: { readonly memory?: string; readonly cpus?: number } = {}): string {
  return `
stack = "tight"
${busyboxImage}
[container.busy]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "while true; do :; done"]
memory     = "${memory}"
cpus       = ${cpus}
pids       = 20
stop-grace = "100ms"

[container.greedy]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; tail -c 200m /dev/zero"]
memory     = "16MiB"
restart    = "never"
stop-grace = "100ms"
`;
}

let daemon: TestDaemon;
let file: string;

before(async () => {
  daemon = await TestDaemon.start();
  file = join(daemon.folder("tight", { "croft.toml": stackFile() }), "croft.toml");
  const { code, stdout, stderr } = await daemon.croft(["up", file, "--yes"]);
  assert.equal(code, 0, stdout + stderr);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function reading(): Promise<{
  readonly cpuPercent: number;
  readonly memoryBytes: number;
  readonly memoryLimitBytes?: number;
  readonly pids: number;
}> {
  const { code, stdout, stderr } = await daemon.croft(["stats", "tight/busy", "--once", "--json"]);
  assert.equal(code, 0, stderr);
  const said = JSON.parse(stdout.split("\n")[0] ?? "") as { readonly instances?: readonly [never] };
  return said.instances?.[0] ?? (said as never);
}

test("what takes more memory than it may is killed, and that is said", async () => {
  const go = await daemon.croft(["exec", "tight/greedy", "busybox", "touch", "/go"]);
  assert.equal(go.code, 0, go.stderr);
  const ended = await eventually("the end of it", async () => {
    const instance = await daemon.client.instances.get({ instance: "tight/greedy" });
    return instance.status === "exited" && instance;
  });
  assert.equal(ended.oomKilled, true, JSON.stringify(ended));
  assert.equal(ended.exitCode, 137);
  const { stdout } = await daemon.croft(["ps", "--all"]);
  assert.match(stdout, /memory|oom/i, stdout);
  await eventually("the event", async () => (await daemon.events()).some(({ kind }) => kind === "instance.oom-killed"));
});

test("no more processes than it may have", async () => {
  const { stdout, stderr } = await daemon.croft([
    "exec",
    "tight/busy",
    "busybox",
    "sh",
    "-c",
    "for i in $(busybox seq 40); do busybox sleep 3 & done; busybox true; echo all forty",
  ]);
  assert.doesNotMatch(stdout, /all forty/);
  assert.match(stderr, /fork|resource/i);
});

test("a fifth of a core is a fifth of a core, however busy", async () => {
  await eventually("the processes of the test before are gone", async () => (await reading()).pids < 5);
  const { cpuPercent, memoryBytes, memoryLimitBytes } = await reading();
  // Half of it would do on a machine that has other things to do; nothing may go far beyond it.
  assert.ok(cpuPercent > 0 && cpuPercent < 40, `${cpuPercent} %`);
  assert.equal(memoryLimitBytes, 64 * mib);
  assert.ok(memoryBytes > 0 && memoryBytes < 64 * mib, `${memoryBytes} bytes`);
});

test("memory and cpus change while it runs", async () => {
  const before = await daemon.client.instances.get({ instance: "tight/busy" });
  writeFileSync(file, stackFile({ memory: "96MiB", cpus: 0.7 }));
  const plan = await daemon.croft(["plan", file, "--json"]);
  const { steps } = JSON.parse(plan.stdout) as { readonly steps: readonly { subject: string; cost: string }[] };
  const costs = steps.filter(({ subject }) => subject.includes("busy")).map(({ cost }) => cost);
  assert.deepEqual([...new Set(costs)], ["hot"], plan.stdout);
  const up = await daemon.croft(["up", file, "--yes"]);
  assert.equal(up.code, 0, up.stdout + up.stderr);
  const now = await daemon.client.instances.get({ instance: "tight/busy" });
  assert.equal(now.pid, before.pid);
  const { memoryLimitBytes } = await reading();
  assert.equal(memoryLimitBytes, 96 * mib);
  await eventually("more than it might have before", async () => (await reading()).cpuPercent > 40);
});
