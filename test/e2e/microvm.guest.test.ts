import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Instance } from "../../src/client/message.ts";
import { ask } from "./ask.ts";
import { busyboxImage, type Said, TestDaemon } from "./daemon.ts";
import { bootLimitMs, eventually } from "./eventually.ts";
import { machineTraceOf, programs, traceOf } from "./host-trace.ts";
import { inTerminal } from "./terminal.ts";

/** The life of microVMs beside a container, in order: each test goes on where the one before ended. */
let daemon: TestDaemon;
let file: string;

const mib = 2 ** 20;
const box = "localhost/deep/box";

interface Shape {
  readonly kind?: "microvm" | "container";
  readonly memory?: string;
}

/** `web` has all that a section may have. */
function stackFile({ kind = "microvm", memory = "64MiB" }: Shape = {}): string {
  return `
stack = "deep"
${busyboxImage}
[network.left]
[network.right]
[volume.data]

[secret.made]
generate = { length = 40 }

[${kind}.web]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "echo run >> /data/runs; echo web is up; echo oops >&2; exec busybox httpd -f -p 80 -h /data"]
networks   = ["left"]
env        = { MADE = { secret = "made" } }
files      = { "/run/made" = { secret = "made" } }
volumes    = { data = "/data" }
publish    = ["18380:80"]
memory     = "${memory}"
pids       = 30
health     = { exec = ["/bin/busybox", "test", "-s", "/data/runs"], interval = "1s" }
stop-grace = "100ms"

[microvm.other]
image      = "box"
networks   = ["right"]
command    = ["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/busybox", "echo", "other"]
stop-grace = "100ms"

[container.side]
image      = "box"
networks   = ["left"]
command    = ["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/busybox", "echo", "side"]
stop-grace = "100ms"
`;
}

before(async () => {
  daemon = await TestDaemon.start();
  file = join(daemon.folder("deep", { "croft.toml": stackFile() }), "croft.toml");
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function up(shape?: Shape): Promise<void> {
  writeFileSync(file, stackFile(shape));
  const { code, stdout, stderr } = await daemon.croft(["up", file, "--yes"], { limitMs: 2 * bootLimitMs });
  assert.equal(code, 0, stdout + stderr);
}

async function instance(section: string): Promise<Instance> {
  return await daemon.client.instances.get({ instance: `deep/${section}` });
}

function exec(section: string, ...command: readonly string[]): Promise<Said> {
  return daemon.croft(["exec", `deep/${section}`, "busybox", ...command]);
}

/** Output of a program in an instance, which must end well. */
async function inside(section: string, ...command: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await exec(section, ...command);
  assert.equal(code, 0, `${section}: ${command.join(" ")}: ${stdout}${stderr}`);
  return stdout.trim();
}

/** How often `web` has been started, as the volume knows it, read through its published port. */
async function runs(): Promise<number> {
  const answer = await ask(18380, "127.0.0.1", "GET /runs HTTP/1.0\r\n\r\n");
  assert.match(answer, /^HTTP\/1\.[01] 200 /);
  return answer.match(/^run$/gm)?.length ?? 0;
}

/** What is the same as long as nobody started it anew: the process and its start on the host, the boot in the guest. */
async function identity(section: string): Promise<object> {
  const { id, pid, started } = await instance(section);
  return { id, pid, started, boot: await inside(section, "cat", "/proc/sys/kernel/random/boot_id") };
}

async function uptimeSec(section: string): Promise<number> {
  return Number.parseFloat(await inside(section, "cat", "/proc/uptime"));
}

test("from a file to healthy, each with a kernel of its own, reached by its published port and by its name", async () => {
  await up();
  assert.equal((await daemon.client.stacks.get({ stack: "deep" })).status, "healthy");
  assert.notEqual(await inside("web", "uname", "-r"), release());
  assert.equal(await inside("side", "uname", "-r"), release());
  assert.equal(await runs(), 1);
  assert.equal(await inside("side", "wget", "-qO-", "http://web/runs"), "run");
  assert.equal(await inside("web", "nc", "side", "80"), "side");
  assert.equal(await inside("web", "hostname"), "web");
  const [address] = (await instance("web")).addresses;
  assert.match(await inside("web", "ip", "-4", "address"), new RegExp(`inet ${address?.address}/`));
  await wholeAndNoMore();
});

/** Whoever saves the memory of a guest for others has a tap meanwhile. */
async function wholeAndNoMore(): Promise<void> {
  await eventually(
    "two machines and what is theirs",
    () => {
      assert.deepEqual(machineTraceOf(daemon.root), { machines: 2, servers: 1, taps: 2, sockets: 9 });
      return true;
    },
    bootLimitMs,
  );
}

test("networks do not reach each other, by name or by address", async () => {
  assert.equal(await inside("other", "nc", "127.0.0.1", "80"), "other", "the probe works");
  for (const [from, to] of [
    ["other", "web"],
    ["other", "side"],
    ["web", "other"],
  ] as const) {
    const [address] = (await instance(to)).addresses;
    for (const where of [to, address?.address ?? assert.fail("no address")]) {
      const { code, stdout } = await exec(from, "timeout", "5", "busybox", "nc", "-w", "3", where, "80");
      assert.notEqual(code, 0, `${from} reaches ${where}: ${stdout}`);
    }
  }
});

test("a secret arrives as a variable and as a file, and lies nowhere on the disk", async () => {
  const made = await inside("web", "cat", "/run/made");
  assert.match(made, /^\S{40}$/);
  const shown = await inside("web", "sh", "-c", "echo $MADE; busybox stat -c %a /run/made");
  assert.equal(shown, `${made}\n400`);
  // What it wrote to its own disk is there: the search would find it.
  await inside("web", "sh", "-c", "echo written-by-the-guest > /witness; busybox sync");
  assert.ok(isOnDisk("written-by-the-guest"));
  assert.ok(!isOnDisk(made));
});

/** Whether anything on the disk holds that text. Disks of machines are mostly holes, which tar steps over. */
function isOnDisk(text: string): boolean {
  const archive = join(daemon.root, "lib.tar");
  const packed = spawnSync("tar", ["--sparse", "-cf", archive, "-C", daemon.libDir, "."], { encoding: "utf8" });
  // 1: the database changed meanwhile.
  assert.ok(packed.status === 0 || packed.status === 1, packed.stderr);
  const { status, stderr } = spawnSync("grep", ["-qaF", "--", text, archive], { encoding: "utf8" });
  rmSync(archive);
  assert.ok(status === 0 || status === 1, stderr);
  return status === 0;
}

test("standard output and standard error are apart in the log", async () => {
  const { code, stdout, stderr } = await daemon.croft(["logs", "deep/web"]);
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: "web is up\n", stderr: "oops\n" });
});

test("exec: streams, standard input, exit codes, environment", async () => {
  const apart = await exec("web", "sh", "-c", "echo out; echo err >&2; exit 7");
  assert.deepEqual(apart, { code: 7, stdout: "out\n", stderr: "err\n" });
  const bytes = "all of it\n".repeat(20_000);
  const echoed = await daemon.croft(["exec", "-i", "deep/web", "busybox", "cat"], { input: bytes });
  assert.ok(echoed.code === 0 && echoed.stdout === bytes, `${echoed.stdout.length} bytes came back: ${echoed.stderr}`);
  assert.equal((await daemon.croft(["exec", "deep/web", "no-such-program"])).code, 127);
  const placed = ["exec", "-e", "A=b c", "-w", "/run", "deep/web", "busybox", "sh", "-c", "echo $A; pwd"];
  assert.equal((await daemon.croft(placed)).stdout, "b c\n/run\n");
  const leaving = await exec("web", "sh", "-c", "busybox sleep 1000000 & echo begun; exit 3");
  assert.deepEqual(leaving, { code: 3, stdout: "begun\n", stderr: "" }, "what it left behind is not waited for");
});

test("exec in a terminal: its size, its keys, its exit code", async () => {
  const script = String.raw`
    until busybox stty size | busybox grep "30 100"; do busybox sleep 0.05; done
    trap "busybox stty size" WINCH
    trap "echo interrupted; exit 42" INT
    echo ready
    while :; do busybox sleep 0.05; done`;
  const { shown, code } = await inTerminal(
    daemon.root,
    `"$CROFT" exec -it deep/web busybox sh -c '${script}'`,
    [/ready/, (pty) => pty.resize(120, 40)],
    [/40 120/, "\u0003"],
  );
  assert.equal(code, 42, shown);
  assert.match(shown, /^30 100\r\nready\r\n/m);
  assert.match(shown, /interrupted\r\n/);
});

test("its limits are those of its section, and change while it runs", async () => {
  const before = await identity("web");
  const many = "for i in $(busybox seq 40); do busybox sleep 3 & done; busybox true; echo all forty";
  const forked = await exec("web", "sh", "-c", many);
  assert.doesNotMatch(forked.stdout, /all forty/);
  assert.match(forked.stderr, /fork|resource/i);
  assert.equal(await memoryLimit(), 64 * mib);
  await up({ memory: "96MiB" });
  assert.equal(await memoryLimit(), 96 * mib);
  assert.deepEqual(await identity("web"), before);
});

async function memoryLimit(): Promise<number> {
  const { code, stdout, stderr } = await daemon.croft(["stats", "deep/web", "--once", "--json"]);
  assert.equal(code, 0, stderr);
  return (JSON.parse(stdout) as { instances: [{ memoryLimitBytes: number }] }).instances[0].memoryLimitBytes;
}

test("run passes on streams and the exit code, and leaves nothing with --rm", async () => {
  const before = machineTraceOf(daemon.root);
  const program = ["/bin/sh", "-c", "echo from inside; echo aside >&2; exit 5"];
  const said = await daemon.croft(["run", "--rm", "--quiet", "--as", "microvm", box, ...program]);
  assert.deepEqual(said, { code: 5, stdout: "from inside\n", stderr: "aside\n" });
  await eventually("nothing of it is left", () => {
    assert.deepEqual(machineTraceOf(daemon.root), before);
    return true;
  });
});

test("what takes more memory than it may is killed, and that is said", async () => {
  const program = ["/bin/busybox", "tail", "-c", "200m", "/dev/zero"];
  const started = await daemon.croft([
    "run",
    "-d",
    "--as",
    "microvm",
    "--name",
    "greedy",
    "-m",
    "16m",
    box,
    ...program,
  ]);
  assert.equal(started.code, 0, started.stderr);
  const ended = await eventually(
    "the end of it",
    async () => {
      const greedy = await daemon.client.instances.get({ instance: "greedy" });
      return greedy.status === "exited" && greedy;
    },
    bootLimitMs,
  );
  assert.equal(ended.oomKilled, true, JSON.stringify(ended));
  assert.equal(ended.exitCode, 137);
  assert.match((await daemon.croft(["ps", "--all"])).stdout, /greedy.*memory/i);
  await eventually("the event", async () => (await daemon.events()).some(({ kind }) => kind === "instance.oom-killed"));
  assert.equal((await daemon.croft(["rm", "greedy"])).code, 0);
});

test("top lists the processes of its own kernel, and not what runs it on the host", async () => {
  const { code, stdout, stderr } = await daemon.croft(["top", "deep/web"]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /busybox httpd -f -p 80/);
  assert.doesNotMatch(stdout, /qemu|virtiofsd/);
});

test("pause stops it where it is, and unpause lets it go on", async () => {
  const before = await identity("other");
  assert.equal((await daemon.croft(["pause", "deep/other"])).code, 0);
  assert.equal((await instance("other")).status, "paused");
  const { code, stderr } = await daemon.croft(["unpause", "deep/other"]);
  assert.equal(code, 0, stderr);
  assert.deepEqual(await identity("other"), before);
});

test("suspend keeps its memory on disk and ends it, and resume lets it go on, whatever became of the daemon", async () => {
  const boot = await inside("other", "cat", "/proc/sys/kernel/random/boot_id");
  const { machines } = machineTraceOf(daemon.root);
  const suspended = await daemon.croft(["suspend", "deep/other"]);
  assert.equal(suspended.code, 0, suspended.stderr);
  assert.equal((await instance("other")).status, "suspended");
  await eventually("its QEMU is gone", () => machineTraceOf(daemon.root).machines === machines - 1);
  await daemon.kill9();
  await daemon.start();
  assert.equal((await instance("other")).status, "suspended");
  const resumed = await daemon.croft(["resume", "deep/other"]);
  assert.equal(resumed.code, 0, resumed.stderr);
  const { stdout } = await daemon.croft(["logs", "deep/other"]);
  assert.equal(
    await inside("other", "cat", "/proc/sys/kernel/random/boot_id"),
    boot,
    `it never booted again: ${stdout}`,
  );
  assert.equal(await inside("other", "nc", "127.0.0.1", "80"), "other");
});

test("a daemon that is restarted, and one that is killed, find what they left: same process, same boot", async () => {
  const before = { web: await identity("web"), other: await identity("other"), side: (await instance("side")).pid };
  for (const end of ["stop", "kill9"] as const) {
    const uptime = await uptimeSec("web");
    await daemon[end]();
    assert.ok((await runs()) >= 1, "it serves while there is no daemon");
    await daemon.start();
    const now = { web: await identity("web"), other: await identity("other"), side: (await instance("side")).pid };
    assert.deepEqual(now, before, end);
    assert.ok((await uptimeSec("web")) >= uptime, "it never booted again");
  }
});

/** Resolves when `web` runs as another process than before, and is as good as ever. */
async function backAgain(before: Instance): Promise<void> {
  await eventually(
    "it is back",
    async () => {
      const now = await instance("web");
      return now.pid !== undefined && now.pid !== before.pid && now.health === "healthy" && (await runs()) > 0;
    },
    bootLimitMs,
  );
  assert.equal(await inside("web", "nc", "side", "80"), "side");
  await wholeAndNoMore();
}

test("its QEMU is killed: it comes back, with its data", async () => {
  const before = await instance("web");
  const known = await runs();
  process.kill(before.pid ?? assert.fail("it does not run"), "SIGKILL");
  await backAgain(before);
  assert.equal(await runs(), known + 1);
  const exits = (await daemon.events()).filter(({ kind }) => kind === "instance.exited");
  assert.match(exits.at(-1)?.message ?? "", /137/);
});

test("the program that serves its volume is killed: it comes back, with its data", async () => {
  const before = await instance("web");
  const known = await runs();
  const servers = programs("virtiofsd", `=${daemon.root}/`);
  assert.ok(servers.length > 0);
  for (const pid of servers) process.kill(pid, "SIGKILL");
  await backAgain(before);
  assert.equal(await runs(), known + 1);
});

test("changing the one word recreates it, there and back, and the volume keeps its data", async () => {
  const untouched = await identity("other");
  let known = await runs();
  for (const kind of ["container", "microvm"] as const) {
    writeFileSync(file, stackFile({ kind }));
    const plan = await daemon.croft(["plan", file, "--json"]);
    const { steps } = JSON.parse(plan.stdout) as { readonly steps: readonly { subject: string; cost: string }[] };
    assert.ok(steps.length > 0 && steps.every(({ subject }) => subject.includes("web")), plan.stdout);
    assert.ok(
      steps.some(({ cost }) => cost === "recreate"),
      plan.stdout,
    );
    await up({ kind });
    assert.equal((await inside("web", "uname", "-r")) === release(), kind === "container");
    known += 1;
    assert.equal(await runs(), known, kind);
    assert.equal(await inside("side", "wget", "-qO-", "http://web/runs"), "run\n".repeat(known).trim());
  }
  assert.deepEqual(await identity("other"), untouched);
});

test("down leaves the volume and nothing else", async () => {
  const { code, stderr } = await daemon.croft(["down", "deep"]);
  assert.equal(code, 0, stderr);
  assert.match(readFileSync(join(daemon.libDir, "pool", "volumes", "deep.data", "data", "runs"), "utf8"), /^(run\n)+$/);
  // The memory of a guest may just be being saved for others.
  await eventually(
    "nothing else is there",
    () => {
      const { monitors, namespaces, links, cgroups, roots } = traceOf(daemon.root);
      const rest = { monitors, namespaces, links, cgroups, roots, ...machineTraceOf(daemon.root) };
      // The bridge of what `croft run` runs waits for the next.
      const none = { monitors: 0, namespaces: 0, links: 1, cgroups: 0, roots: 0 };
      assert.deepEqual(rest, { ...none, machines: 0, servers: 0, taps: 0, sockets: 0 });
      return true;
    },
    bootLimitMs,
  );
});
