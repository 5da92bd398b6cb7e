import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { ask } from "./ask.ts";
import { busyboxImage, TestDaemon } from "./daemon.ts";
import { Neighbour } from "./neighbour.ts";

const server = (text: string): string => `
command    = ["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/busybox", "echo", "${text}"]
image      = "box"
stop-grace = "100ms"`;

const stackFile = `
stack = "apart"
${busyboxImage}
[network.left]
[network.right]
[network.closed]
internal = true

[container.lefty]
networks = ["left"]
${server("left")}

[container.righty]
networks = ["right"]
${server("right")}

[container.many]
networks = ["left"]
replicas = 3
${server("many")}

[container.shut]
networks = ["closed"]
${server("shut")}
`;

const portFile = (stack: string, port: number): string => `
stack = "${stack}"
${busyboxImage}
[container.door]
publish = ["${port}:80"]
${server(stack)}
`;

let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start();
  await up(daemon, "apart", stackFile);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function up(on: TestDaemon, name: string, text: string): Promise<void> {
  const { code, stdout, stderr } = await on.croft(["up", on.folder(name, { "croft.toml": text }), "--yes"]);
  assert.equal(code, 0, stdout + stderr);
}

/** Output of a program in an instance; says nothing when it failed. */
async function inside(instance: string, ...command: readonly string[]): Promise<string> {
  const { stdout, code } = await daemon.croft([
    "exec",
    `apart/${instance}`,
    "busybox",
    "timeout",
    "3",
    "busybox",
    ...command,
  ]);
  return code === 0 ? stdout.trim() : "";
}

async function addressOf(instance: string): Promise<string> {
  const { addresses } = await daemon.client.instances.get({ instance: `apart/${instance}` });
  return addresses[0]?.address ?? "";
}

test("members of one network reach each other by name; replicas are several addresses", async () => {
  assert.equal(await inside("lefty", "nc", "many", "80"), "many");
  const answer = await inside("lefty", "nslookup", "many");
  const found = new Set(answer.slice(answer.indexOf("Name:")).match(/\d+\.\d+\.\d+\.\d+/g));
  const wanted = await Promise.all([1, 2, 3].map((ordinal) => addressOf(`many-${ordinal}`)));
  assert.deepEqual([...found].sort(), [...wanted].sort(), answer);
});

test("networks do not reach each other, by name or by address", async () => {
  assert.equal(await inside("righty", "nc", "127.0.0.1", "80"), "right", "the probe works");
  assert.equal(await inside("lefty", "nslookup", "righty"), "");
  assert.equal(await inside("lefty", "nc", await addressOf("righty"), "80"), "");
  assert.equal(await inside("righty", "nc", await addressOf("lefty"), "80"), "");
});

test("an internal network has no way out; others have", async () => {
  using neighbour = await Neighbour.move();
  const there = createServer((socket) => socket.end("outside"));
  await new Promise<void>((resolve) => there.listen(18181, neighbour.hostAddress, resolve));
  try {
    assert.match(await inside("lefty", "ping", "-c", "1", "-W", "2", neighbour.address), /1 packets received/);
    assert.equal(await inside("shut", "ping", "-c", "1", "-W", "2", neighbour.address), "");
    assert.equal(await inside("shut", "nc", neighbour.hostAddress, "18181"), "");
  } finally {
    there.close();
  }
});

test("a port that is held names its holder: another stack, or a program of the host", async () => {
  await up(daemon, "first", portFile("first", 18090));
  const clash = await daemon.croft([
    "up",
    daemon.folder("second", { "croft.toml": portFile("second", 18090) }),
    "--yes",
  ]);
  assert.notEqual(clash.code, 0);
  assert.match(clash.stdout + clash.stderr, /18090[\s\S]*first/);
  assert.equal(await ask(18090), "first", "the holder goes on");

  const program = createServer((socket) => socket.end("program"));
  await new Promise<void>((resolve) => program.listen(18091, "0.0.0.0", resolve));
  try {
    const folder = daemon.folder("third", { "croft.toml": portFile("third", 18091) });
    const held = await daemon.croft(["up", folder, "--yes"]);
    assert.notEqual(held.code, 0);
    assert.match(held.stdout + held.stderr, new RegExp(`18091[\\s\\S]*${process.pid}`), "with its pid");
    assert.equal(await ask(18091), "program", "it goes on");
  } finally {
    program.close();
  }
});

test("two daemons on one host do not meet", async () => {
  await using other = await TestDaemon.start();
  await up(other, "first", portFile("first", 18092));
  assert.equal(await ask(18092), "first");
  assert.equal(await ask(18090), "first");
  const { instances } = await other.client.instances.list();
  assert.deepEqual(
    instances.map(({ stack }) => stack),
    ["first"],
  );
  const mine = await daemon.client.instances.get({ instance: "first/door" });
  const down = await other.croft(["down", "first"]);
  assert.equal(down.code, 0, down.stderr);
  assert.equal((await daemon.client.instances.get({ instance: "first/door" })).pid, mine.pid);
  assert.equal(await ask(18090), "first");
});
