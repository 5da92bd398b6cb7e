import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ask } from "./ask.ts";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { bootLimitMs, eventually } from "./eventually.ts";
import { inTerminal } from "./terminal.ts";

/** What a person tries first: `croft run --as microvm`, and replicas that begin where another one's memory was kept. */
let daemon: TestDaemon;
let folder: string;

const image = "localhost/many/box";

before(async () => {
  daemon = await TestDaemon.start();
  folder = daemon.folder("many", { "croft.toml": stackFile(1) });
  await up();
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function up(): Promise<void> {
  const { code, stderr } = await daemon.croft(["up", join(folder, "croft.toml"), "--yes"], { limitMs: bootLimitMs });
  assert.equal(code, 0, stderr);
}

function stackFile(replicas: number): string {
  return `
stack = "many"
${busyboxImage}
[microvm.same]
image      = "box"
replicas   = ${replicas}
command    = ["/bin/sh", "-c", "busybox head -c 16 /dev/urandom | busybox hexdump -e '16/1 \\"%02x\\"'; echo; exec busybox sleep 100000"]
stop-grace = "100ms"
`;
}

/** Of busybox's shell, which may ask the terminal where its cursor is. */
const prompt = /# (?:.\[6n)?$/s;

test("a shell in a terminal: its size, its keys, its exit code", async () => {
  const { shown, code } = await inTerminal(
    daemon.root,
    `"$CROFT" run --rm -it --as microvm ${image} /bin/sh`,
    [prompt, "busybox stty size; busybox hostname; busybox tty\r"],
    [
      /30 100[^]*\/dev\/[^]*# (?:.\[6n)?$/s,
      (pty) => {
        pty.resize(120, 40);
        pty.write("until busybox stty size | busybox grep '40 120'; do :; done\r");
      },
    ],
    // A key that comes before the program has the terminal would find nobody.
    [/40 120\r\n[^]*# (?:.\[6n)?$/s, "busybox sh -c 'echo asleep; exec busybox sleep 1000'\r"],
    [/asleep\r\n/, "\u0003"],
    [prompt, "echo $((6 * 7)); exit 9\r"],
  );
  assert.equal(code, 9, shown);
  assert.match(shown, /^42\r$/m);
});

test("what is piped in comes out, all of it, and the end of it is the end", async () => {
  const bytes = "line after line\n".repeat(50_000);
  const counted = ["run", "--rm", "-i", "--quiet", "--as", "microvm", image, "busybox", "md5sum"];
  const { code, stdout, stderr } = await daemon.croft(counted, { input: bytes, limitMs: bootLimitMs });
  assert.deepEqual([code, stdout], [0, `${createHash("md5").update(bytes).digest("hex")}  -\n`], stderr);
});

test("signals reach its program, and what ended it is told", async () => {
  const script =
    'trap "echo hangup" HUP; trap "echo bye; exit 3" TERM; echo ready; while :; do busybox sleep 0.1; done';
  const run = [
    "run",
    "-d",
    "--as",
    "microvm",
    "--name",
    "asked",
    "--stop-timeout",
    "60s",
    image,
    "/bin/sh",
    "-c",
    script,
  ];
  const { code, stderr } = await daemon.croft(run, { limitMs: bootLimitMs });
  assert.equal(code, 0, stderr);
  const says = async (text: string): Promise<void> => {
    await eventually(text, async () => (await daemon.croft(["logs", "asked"])).stdout.includes(text), bootLimitMs);
  };
  await says("ready");
  assert.equal((await daemon.croft(["kill", "-s", "HUP", "asked"])).code, 0);
  await says("hangup");
  assert.equal((await daemon.croft(["stop", "asked"])).code, 0);
  await says("bye");
  assert.equal((await daemon.client.instances.get({ instance: "asked" })).exitCode, 3);
  assert.equal((await daemon.croft(["rm", "asked"])).code, 0);
  const killed = await daemon.croft(
    ["run", "--rm", "--quiet", "--as", "microvm", image, "/bin/sh", "-c", "kill -9 $$"],
    { limitMs: bootLimitMs },
  );
  assert.equal(killed.code, 137);
});

test("with a published port, a volume, folders and files of the host, a user, a read-only root", async () => {
  const served = join(folder, "served");
  writeFileSync(served, "a file of the host\n");
  const script = "busybox hostname > name; echo $A >> name; echo more >> /own; exec busybox httpd -f -p 8080 -h /kept";
  const flags = ["--read-only", "--tmpfs", "/scratch", "-e", "A=b c", "-h", "named", "-w", "/kept", "--cpus", "1"];
  const mounts = ["-p", "18381:8080", "-v", "kept:/kept", "-v", `${served}:/own`];
  const run = ["run", "-d", "--as", "microvm", "--name", "full", ...mounts, ...flags, image, "/bin/sh", "-c", script];
  const { code, stderr } = await daemon.croft(run, { limitMs: bootLimitMs });
  assert.equal(code, 0, stderr);
  await eventually(
    "it serves",
    async () => (await ask(18381, "127.0.0.1", "GET /name HTTP/1.0\r\n\r\n").catch(() => "")).endsWith("named\nb c"),
    bootLimitMs,
  );
  assert.equal(readFileSync(served, "utf8"), "a file of the host\nmore\n");
  const refused = await daemon.croft(["exec", "full", "busybox", "touch", "/new"]);
  assert.match(refused.stderr, /[Rr]ead-only/);
  const other = await daemon.croft(["exec", "-u", "7:8", "full", "busybox", "id", "-u"]);
  assert.equal(other.stdout, "7\n", other.stderr);
  assert.equal((await daemon.croft(["exec", "full", "busybox", "touch", "/scratch/new"])).code, 0);
  const stats = await daemon.croft(["stats", "full", "--once", "--json"]);
  const [reading] = (JSON.parse(stats.stdout) as { instances: { memoryBytes: number; cpuPercent?: number }[] })
    .instances;
  assert.ok((reading?.memoryBytes ?? 0) > 0, stats.stdout);
  assert.equal((await daemon.croft(["rm", "--force", "full"])).code, 0);
});

test("replicas that go on from one memory have random numbers, names and addresses of their own, and the time", async () => {
  const seen = {
    random: new Set<string>(),
    name: new Set<string>(),
    address: new Set<string>(),
    uuid: new Set<string>(),
  };
  const kept = join(daemon.libDir, "guest", "warm");
  await eventually(
    "the memory of the first is kept",
    () => readdirSync(kept).some((name) => !name.endsWith(".new")),
    bootLimitMs,
  );
  writeFileSync(join(folder, "croft.toml"), stackFile(3));
  await up();
  const { instances } = await daemon.client.instances.list({ stack: "many" });
  assert.equal(instances.length, 3);
  for (const { name, addresses } of instances) {
    const inside = async (...words: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await daemon.croft(["exec", `many/${name}`, "busybox", ...words]);
      assert.equal(code, 0, stderr);
      return stdout.trim();
    };
    seen.random.add((await daemon.croft(["logs", `many/${name}`])).stdout.trim());
    seen.name.add(await inside("hostname"));
    seen.uuid.add(await inside("cat", "/proc/sys/kernel/random/uuid"));
    const shown = await inside("ip", "-4", "address");
    assert.ok(shown.includes(`inet ${addresses[0]?.address}/`), shown);
    seen.address.add(addresses[0]?.address ?? "");
    const behindMs = Date.now() - Number(await inside("date", "+%s")) * 1000;
    assert.ok(Math.abs(behindMs) < 30_000, `${name} is ${behindMs} ms behind`);
  }
  assert.deepEqual(
    Object.values(seen).map(({ size }) => size),
    [3, 3, 3, 3],
  );
  for (const text of seen.random) assert.match(text, /^[0-9a-f]{32}$/);
});
