import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ask } from "./ask.ts";
import { busyboxImage, checkout, TestDaemon } from "./daemon.ts";
import { eventually } from "./eventually.ts";
import { traceOf } from "./host-trace.ts";
import { Neighbour } from "./neighbour.ts";

/** The life of one stack, in order: each test goes on where the one before ended. */
let daemon: TestDaemon;
let file: string;

/** Says what it was told to say, and who asked. */
const who = "#!/bin/sh\necho\necho $GREETING $REMOTE_ADDR\n";
const request = "GET /cgi-bin/who HTTP/1.0\r\n\r\n";

interface Shape {
  readonly greeting?: string;
  readonly health?: string;
  readonly more?: string;
}

function stackFile({ greeting = "hello", health = "tcp = 80", more = "" }: Shape = {}): string {
  return `
stack = "life"
${busyboxImage}
[volume.data]

[container.db]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "echo run >> /data/runs; echo database is up; exec busybox nc -ll -p 5432 -e busybox cat"]
volumes    = { data = "/data" }
health     = { tcp = 5432, interval = "200ms" }
stop-grace = "100ms"

[container.web]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "echo web says $GREETING; exec busybox httpd -f -p 0.0.0.0:80 -h /www"]
files      = { "/www/cgi-bin/who" = "./who" }
env        = { GREETING = "${greeting}" }
needs      = ["db"]
publish    = ["18080:80"]
health     = { ${health}, interval = "200ms", retries = 2 }
update     = { healthy-within = "5s" }
stop-grace = "100ms"
${more}`;
}

before(async () => {
  daemon = await TestDaemon.start();
  file = join(daemon.folder("life", { "croft.toml": stackFile(), who }), "croft.toml");
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

/** Section → pids on the host. */
async function pids(): Promise<Readonly<Record<string, number | undefined>>> {
  const { instances } = await daemon.client.instances.list({ stack: "life" });
  return Object.fromEntries(instances.map(({ name, pid }) => [name, pid]));
}

async function up(shape?: Shape): Promise<void> {
  writeFileSync(file, stackFile(shape));
  const { code, stdout, stderr } = await daemon.croft(["up", file, "--yes"]);
  assert.equal(code, 0, stdout + stderr);
}

async function greeting(address?: string): Promise<string> {
  return (await ask(18080, address, request)).split("\n").at(-1) ?? "";
}

test("from a file to healthy and reachable: from the host, from a container, from another host that keeps its address", async () => {
  await up();
  const { stacks } = await daemon.client.stacks.list();
  assert.equal(stacks.find(({ name }) => name === "life")?.status, "healthy");
  assert.match(await greeting(), /^hello /);
  using neighbour = await Neighbour.move();
  assert.match(await greeting(neighbour.hostAddress), /^hello /);
  assert.equal(
    neighbour.run("busybox", "wget", "-qO-", `http://${neighbour.hostAddress}:18080/cgi-bin/who`).trim(),
    `hello ${neighbour.address}`,
    "the client's own address arrives",
  );
  const inside = await daemon.croft(["exec", "life/db", "busybox", "wget", "-qO-", "http://web/cgi-bin/who"]);
  assert.match(inside.stdout, /^hello /, inside.stderr);
  const published = await daemon.croft([
    "exec",
    "life/db",
    "busybox",
    "wget",
    "-qO-",
    `http://${neighbour.hostAddress}:18080/cgi-bin/who`,
  ]);
  assert.match(published.stdout, /^hello /, `a published port, from a container: ${published.stderr}`);
});

test("up again changes nothing", async () => {
  const before = await pids();
  await up();
  assert.deepEqual(await pids(), before);
  const { generations } = await daemon.client.stacks.listGenerations({ stack: "life" });
  assert.equal(generations.length, 1);
});

test("a change is planned for what it concerns, and nothing else is touched", async () => {
  const before = await pids();
  writeFileSync(file, stackFile({ greeting: "goodbye" }));
  const plan = await daemon.croft(["plan", file, "--json"]);
  const { steps } = JSON.parse(plan.stdout) as { readonly steps: readonly { subject: string; cost: string }[] };
  assert.ok(steps.length > 0 && steps.every(({ subject }) => subject.includes("web")), plan.stdout);
  assert.ok(
    steps.some(({ cost }) => cost === "recreate"),
    plan.stdout,
  );
  assert.deepEqual(await pids(), before, "a plan changes nothing");
  await up({ greeting: "goodbye" });
  assert.match(await greeting(), /^goodbye /);
  const now = await pids();
  assert.equal(now["db"], before["db"]);
  assert.notEqual(now["web"], before["web"]);
});

test("what does not become healthy goes back by itself, and says why", async () => {
  const before = await pids();
  writeFileSync(file, stackFile({ greeting: "broken", health: "tcp = 81" }));
  const { code, stdout, stderr } = await daemon.croft(["up", file, "--yes"]);
  const said = stdout + stderr;
  assert.equal(code, 7, said);
  assert.match(said, /web/);
  assert.match(said, /web says broken/, "the last log lines");
  await eventually("the old one answers", async () => (await greeting()).startsWith("goodbye "));
  await eventually("healthy", async () => (await daemon.client.stacks.get({ stack: "life" })).status === "healthy");
  assert.equal((await pids())["db"], before["db"]);
  const history = await daemon.croft(["history", "life"]);
  assert.match(history.stdout, /failed/);
});

test("history, diff and rollback", async () => {
  const diff = await daemon.croft(["diff", "life", "1", "2"]);
  assert.match(diff.stdout, /hello[\s\S]*goodbye/, diff.stderr);
  const back = await daemon.croft(["rollback", "life", "1", "--yes"]);
  assert.equal(back.code, 0, back.stderr);
  assert.match(await greeting(), /^hello /);
});

test("Ctrl-C leaves a state that the next command continues from", async () => {
  const before = await pids();
  writeFileSync(file, stackFile({ greeting: "again" }));
  const child = spawn(join(checkout, "bin", "croft"), ["up", file, "--yes"], {
    env: { ...process.env, CROFT_ROOT: daemon.root, NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = once(child, "exit");
  await once(child.stderr, "data");
  child.kill("SIGINT");
  await ended;
  await up({ greeting: "again" });
  assert.match(await greeting(), /^again /);
  assert.equal((await pids())["db"], before["db"]);
});

test("down keeps volumes; with --volumes nothing stays", async () => {
  const runs = join(daemon.root, "lib", "pool", "volumes", "life.data", "data", "runs");
  const down = await daemon.croft(["down", "life"]);
  assert.equal(down.code, 0, down.stderr);
  assert.equal(readFileSync(runs, "utf8"), "run\n");
  await assert.rejects(greeting());
  await up();
  assert.equal(readFileSync(runs, "utf8"), "run\nrun\n");
  const gone = await daemon.croft(["down", "life", "--volumes", "--yes"]);
  assert.equal(gone.code, 0, gone.stderr);
  assert.ok(!existsSync(runs));
  const { monitors, namespaces, links, cgroups, roots } = traceOf(daemon.root);
  assert.deepEqual(
    { monitors, namespaces, links, cgroups, roots },
    { monitors: 0, namespaces: 0, links: 0, cgroups: 0, roots: 0 },
  );
});
