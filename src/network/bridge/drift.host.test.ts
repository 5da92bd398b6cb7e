import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import type { PortSpec, PublishedPort } from "../contract.ts";
import { BridgeNetwork } from "./driver.ts";
import { listOwned, resolverProcesses } from "./owned.ts";
import { instance, makeTestHost, network, type TestHost } from "./test-host.ts";
import { plugIn, type Plugged } from "./test-tap.ts";
import { ask, command, serve } from "./test-traffic.ts";

const call = backgroundCall();
const front = network("front", "10.86.1.0/24");
const web = instance("web", [[front, "10.86.1.5"]]);
const machine: PortSpec = { ...web, kind: "tap" };
const port: PublishedPort = {
  hostAddress: "0.0.0.0",
  hostPort: 18_080,
  protocol: "tcp",
  targets: [{ address: "10.86.1.5", port: 80 }],
  holder: "shop/web",
};
const routing = { names: [{ network: front.id, name: "web", address: "10.86.1.5" }], published: [port] };

let host: TestHost;

beforeEach(async () => {
  host = makeTestHost();
});

afterEach(async () => {
  await host.dispose();
});

/** What is intact: network, instance, routing. */
async function intact(): Promise<boolean[]> {
  const { networks, ports, routingIntact } = await host.driver.list(call);
  return [networks.every((one) => one.intact), ports.every((one) => one.intact), routingIntact];
}

async function makeAll(spec: PortSpec = web): Promise<void> {
  await host.driver.converge(front, call);
  await host.driver.attach(spec, call);
  await host.driver.publish(routing, call);
}

async function worksAgain(): Promise<void> {
  assert.deepEqual(await intact(), [true, true, true]);
  const server = serve(join(host.home.runDir, "netns", web.id), 80, "web");
  try {
    assert.equal(await ask("host", "127.0.0.1", 18_080), "web 10.86.1.1");
  } finally {
    server.close();
  }
}

async function plugMachine(): Promise<Plugged> {
  const attachment = await host.driver.attach(machine, call);
  assert.ok(attachment.kind === "tap");
  return plugIn(attachment, join(host.home.runDir, "machine"));
}

/** What a published port leads to, when the machine at this place answers. */
async function askMachine(place: string): Promise<string> {
  const server = serve(place, 80, "machine");
  try {
    return await ask("host", "127.0.0.1", 18_080);
  } finally {
    server.close();
  }
}

function forwarding(): string {
  return readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8").trim();
}

function linkOf(alias: string): string {
  const link = listOwned(host.home).find((one) => one.includes(`(${alias})`));
  return link?.split(" ")[1] ?? "";
}

test("a bridge deleted by hand is noticed and made again, with its instances back on it", async () => {
  await makeAll();
  command("host", "ip", "link", "delete", linkOf("network shop.front"));
  assert.deepEqual(await intact(), [false, false, true]);
  await makeAll();
  await worksAgain();
});

test("an instance's link deleted by hand is noticed and made again in the same namespace", async () => {
  await makeAll();
  const server = serve(join(host.home.runDir, "netns", web.id), 80, "web");
  command("host", "ip", "link", "delete", linkOf(`instance ${web.id}`));
  assert.deepEqual(await intact(), [true, false, true]);
  await makeAll();
  assert.equal(await ask("host", "127.0.0.1", 18_080), "web 10.86.1.1", "the server inside never stopped");
  server.close();
  await worksAgain();
});

test("a link that was taken off its bridge or down is noticed and mended", async () => {
  await makeAll();
  const link = linkOf(`instance ${web.id}`);
  command("host", "ip", "link", "set", link, "nomaster");
  assert.deepEqual(await intact(), [true, false, true]);
  await makeAll();
  command("host", "ip", "link", "set", link, "down");
  assert.deepEqual(await intact(), [true, false, true]);
  await makeAll();
  await worksAgain();
});

test("a machine's tap that is off its bridge, or down, is mended while the machine goes on", async () => {
  await makeAll(machine);
  const far = await plugMachine();
  const tap = linkOf(`instance ${machine.id}`);
  for (const harm of [["nomaster"], ["down"]]) {
    command("host", "ip", "link", "set", tap, ...harm);
    assert.deepEqual(await intact(), [true, false, true]);
    await makeAll(machine);
    assert.deepEqual(await intact(), [true, true, true]);
    assert.equal(await askMachine(far.place), "machine 10.86.1.1");
  }
  await far.unplug();
});

test("a machine's tap deleted by hand, or with its bridge, is noticed and made again for its next start", async () => {
  for (const harm of [`instance ${machine.id}`, "network shop.front"]) {
    await makeAll(machine);
    const far = await plugMachine();
    command("host", "ip", "link", "delete", linkOf(harm));
    // The link goes, or stands alone; either way the machine reaches nobody.
    assert.equal((await intact())[1], false);
    assert.equal(await askMachine(far.place), "nothing");
    await far.unplug();
    await makeAll(machine);
    assert.deepEqual(await intact(), [true, true, true]);
    const again = await plugMachine();
    assert.equal(await askMachine(again.place), "machine 10.86.1.1");
    await again.unplug();
  }
});

test("a new daemon finds the tap of a running machine, and leaves the machine what it has", async () => {
  await makeAll(machine);
  const far = await plugMachine();
  host.restart();
  assert.equal((await intact())[1], true);
  await makeAll(machine);
  assert.equal(await askMachine(far.place), "machine 10.86.1.1");
  await far.unplug();
});

test("rules that someone flushed or changed are noticed and written again", async () => {
  await makeAll();
  assert.deepEqual(await intact(), [true, true, true]);
  command("host", "nft", "flush", "ruleset");
  assert.deepEqual(await intact(), [true, true, false]);
  await makeAll();
  assert.deepEqual(await intact(), [true, true, true]);
  const table = host.home.prefix.replace("-", "_");
  command("host", "nft", "delete", "element", "inet", table, "published", "{ tcp . 18080 }");
  assert.deepEqual(await intact(), [true, true, false]);
  await makeAll();
  await worksAgain();
});

test("rules that another release of Croft wrote are replaced by those of this one", async () => {
  await makeAll();
  const path = join(host.home.runDir, "network/state/table.json");
  const { epoch, ...applied } = JSON.parse(readFileSync(path, "utf8")) as { readonly epoch: string };
  writeFileSync(path, JSON.stringify({ ...applied, epoch: epoch.split(" ").slice(0, 2).join(" ") }));
  host.restart();
  assert.deepEqual(await intact(), [true, true, false]);
  await host.driver.publish(routing, call);
  await worksAgain();
});

test("rules that others change are theirs: ours count as intact, and stay as they are", async () => {
  await makeAll();
  assert.deepEqual(await intact(), [true, true, true]);
  command("host", "nft", "add", "table", "inet", "of_others");
  assert.deepEqual(await intact(), [true, true, true]);
  await host.driver.publish(routing, call);
  command("host", "nft", "list", "table", "inet", "of_others");
  command("host", "nft", "delete", "table", "inet", "of_others");
  await worksAgain();
});

test("a resolver that was killed is noticed and started again", async () => {
  await makeAll();
  const [pid = 0] = resolverProcesses(host.home);
  process.kill(pid, "SIGKILL");
  while (resolverProcesses(host.home).length > 0) await call.clock.sleep(2);
  assert.deepEqual(await intact(), [false, true, true]);
  await host.driver.converge(front, call);
  assert.equal(resolverProcesses(host.home).length, 1);
  await worksAgain();
});

test("a change of a network that was interrupted is noticed, also when every part of it is there", async () => {
  await makeAll();
  // Killed after what is done at once: the resolver still answers as before.
  const going = host.driver.converge({ ...front, internal: true }, call);
  const next = new BridgeNetwork(host.home);
  const found = next.list(call);
  next.close();
  assert.deepEqual(
    (await found).networks.map(({ internal, intact: whole }) => [internal, whole]),
    [[true, false]],
  );
  await going;
  assert.equal((await intact())[0], true);
});

test("forwarding that someone turned off is noticed and turned on; it goes off again with the last network", async () => {
  command("host", "sysctl", "-qw", "net.ipv4.ip_forward=0");
  await makeAll();
  assert.equal(forwarding(), "1");
  command("host", "sysctl", "-qw", "net.ipv4.ip_forward=0");
  assert.deepEqual(await intact(), [false, true, true]);
  await makeAll();
  assert.equal(forwarding(), "1");
  await host.driver.detach(web.id, call);
  await host.driver.remove(front.id, call);
  assert.equal(forwarding(), "0");
});

test("a port that a program of the host listens on is refused by its name, and published when it is free", async () => {
  const server = createServer().listen(18_080);
  await once(server, "listening");
  await host.driver.converge(front, call);
  const other = { ...port, hostPort: 18_081 };
  const { refused } = await host.driver.publish({ names: [], published: [port, other] }, call);
  assert.equal(refused.length, 1);
  assert.equal(refused[0]?.fault.reason, "conflict");
  assert.match(refused[0].fault.detail["holder"] ?? "", new RegExp(`\\(pid ${process.pid}\\)$`));
  server.close();
  await once(server, "close");
  assert.deepEqual(await host.driver.publish({ names: [], published: [port, other] }, call), { refused: [] });
  const late = createServer().listen(18_080);
  const [error] = (await once(late, "error")) as [NodeJS.ErrnoException];
  assert.equal(error.code, "EADDRINUSE", "a published port is not free for others");
});

test("two daemons of one machine do not meet: neither their instances nor their ports", async () => {
  await makeAll();
  assert.deepEqual(await intact(), [true, true, true]);
  const second = makeTestHost();
  const back = network("front", "10.87.1.0/24");
  const stranger = instance("web", [[back, "10.87.1.5"]]);
  await second.driver.converge(back, call);
  const attachment = await second.driver.attach(stranger, call);
  assert.ok(attachment.kind === "netns");
  const servers = [serve(join(host.home.runDir, "netns", web.id), 80, "first"), serve(attachment.path, 80, "second")];
  assert.equal(await ask(attachment.path, "10.86.1.5", 80), "nothing");
  assert.equal(await ask(join(host.home.runDir, "netns", web.id), "10.87.1.5", 80), "nothing");
  assert.equal(await ask(attachment.path, "10.87.1.1", 18_080), "first 10.86.1.1", "but by the published port");
  const { refused } = await second.driver.publish({ names: [], published: [port] }, call);
  assert.deepEqual(
    refused.map(({ fault }) => fault.reason),
    ["conflict"],
  );
  for (const server of servers) server.close();
  await second.dispose();
  await worksAgain();
});

test("killed at any moment, it leaves nothing that the next one does not find and mend or remove", async () => {
  const script = join(import.meta.dirname, "test-churn.ts");
  const root = join(host.home.runDir, "..");
  for (let round = 0; round < 12; round += 1) {
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", script, root], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    await call.clock.sleep(round * 7);
    child.kill("SIGKILL");
    await once(child, "exit");
    // The next pass of another daemon, which wants other things.
    host.restart();
    const { networks, ports } = await host.driver.list(call);
    for (const { id } of ports) await host.driver.detach(id, call);
    for (const { id } of networks) await host.driver.remove(id, call);
    assert.deepEqual(
      listOwned(host.home).filter((one) => !one.includes("instance")),
      [],
    );
    await makeAll();
    await worksAgain();
  }
});

function tables(): readonly string[] {
  return command("host", "nft", "list", "tables").split("\n").filter(Boolean);
}

test("where no network is left there is no table, also when nothing is published once more", async () => {
  const before = tables();
  await makeAll();
  await host.driver.detach(web.id, call);
  await host.driver.remove(front.id, call);
  assert.deepEqual(tables(), before);
  for (const driver of [host.driver, host.restart()]) {
    await driver.publish({ names: [], published: [] }, call);
    assert.deepEqual(tables(), before);
    assert.equal((await driver.list(call)).routingIntact, true);
  }
});
