import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { instanceId } from "../../base/id.ts";
import { listOwned } from "./owned.ts";
import { instance, network } from "./test-host.ts";
import { ask, askUdp, command, serve, serveUdp, untilClosed } from "./test-traffic.ts";
import { at, front, lookUp, plug, testHost, trafficSuite } from "./traffic-suite.ts";

const call = backgroundCall();

trafficSuite("netns");

test("an instance that is detached answers no more, even while a connection of it keeps its namespace alive", async () => {
  const late = instance("late", [[front, "10.86.1.8"]]);
  const attachment = await testHost().driver.attach(late, call);
  assert.ok(attachment.kind === "netns");
  const server = serve(attachment.path, 80, "late");
  assert.equal(await ask(at("web-1"), "10.86.1.8", 80), "late 10.86.1.5");
  await testHost().driver.detach(late.id, call);
  assert.equal(await ask(at("web-1"), "10.86.1.8", 80), "nothing");
  const successor = await testHost().driver.attach({ ...late, id: instanceId("shop", "late", 1, "fedcba98") }, call);
  assert.ok(successor.kind === "netns");
  const next = serve(successor.path, 80, "successor");
  assert.equal(await ask(at("web-1"), "10.86.1.8", 80), "successor 10.86.1.5");
  next.close();
  await untilClosed(successor.path);
  await testHost().driver.detach(instanceId("shop", "late", 1, "fedcba98"), call);
  await call.clock.sleep(2100);
  const listed = async (): Promise<unknown> =>
    (await testHost().driver.list(call)).ports.filter(({ id }) => id.startsWith("shop.late"));
  // The kernel ends the other one's namespace in its own time, which on a busy machine is long.
  for (let tries = 0; tries < 200 && JSON.stringify(await listed()).includes("fedcba98"); tries += 1) {
    await call.clock.sleep(100);
  }
  assert.deepEqual(await listed(), [{ id: late.id, intact: false }], "it lingers");
  await testHost().driver.detach(late.id, call);
  assert.ok(!listOwned(testHost().home).some((one) => one.includes("late")));
  server.close();
});

test("programs without privileges may listen on low ports and ping", () => {
  assert.equal(command(at("web-1"), "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").trim(), "0");
  assert.match(command(at("web-1"), "cat", "/proc/sys/net/ipv4/ping_group_range"), /^0\s+2147483647/);
});

test("an instance in several networks is no way between them, and speaks no IPv6", () => {
  // A new namespace begins as the machine's first one is, which forwards where Croft runs in that.
  const settings = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
  assert.equal(command(at("app"), "cat", ...settings), "0\n0\n");
  assert.equal(command(at("app"), "ip", "-6", "address", "show", "dev", "eth0"), "");
});

test("a network that becomes internal closes at once for those who run in it, and opens again", async () => {
  const one = network("one", "10.86.4.0/24");
  const two = network("two", "10.86.5.0/24");
  const { driver } = testHost();
  await driver.converge(one, call);
  await driver.converge(two, call);
  const single = instance("single", [[one, "10.86.4.5"]]);
  const double = instance("double", [
    [one, "10.86.4.6"],
    [two, "10.86.5.6"],
  ]);
  const place = await plug(single);
  await plug(double);
  const { resolvers } = await driver.attach(double, call);
  const [resolver = ""] = resolvers;
  const outside = serveUdp(at("outside"), 53, "outside");
  assert.deepEqual([wayOut("single"), wayOut("double")], ["10.86.4.1", "10.86.4.1"]);
  assert.equal(await askUdp(place, "192.0.2.9", 53, 40_011), "outside 192.0.2.1");
  assert.notEqual(await lookUp(resolver, "example.com"), "ENOTFOUND", "the name is asked for outside");

  await driver.converge({ ...one, internal: true }, call);
  assert.deepEqual([wayOut("single"), wayOut("double")], ["none", "10.86.5.1"]);
  assert.equal(await ask(at("double"), "192.0.2.9", 7), "outside 192.0.2.1", "by its other network");
  assert.deepEqual((await driver.attach(double, call)).resolvers, [resolver], "what it was told stays true");
  command(place, "ip", "route", "add", "default", "via", "10.86.4.1");
  assert.equal(await askUdp(place, "192.0.2.9", 53, 40_011), "nothing", "by the connection it had");
  await driver.converge({ ...one, internal: true }, call);
  assert.equal(wayOut("single"), "none", "nor is the route left that would lead nowhere");

  await driver.converge({ ...two, internal: true }, call);
  assert.equal(wayOut("double"), "none");
  assert.equal(await lookUp(resolver, "example.com"), "ENOTFOUND", "no names of outside, where nothing leads out");

  await driver.converge(two, call);
  assert.equal(wayOut("double"), "10.86.5.1");
  assert.notEqual(await lookUp(resolver, "example.com"), "ENOTFOUND");
  await driver.converge(one, call);
  assert.deepEqual([wayOut("single"), wayOut("double")], ["10.86.4.1", "10.86.4.1"]);
  assert.equal(await askUdp(place, "192.0.2.9", 53, 40_012), "outside 192.0.2.1");
  outside.close();
  for (const { id } of [single, double]) await driver.detach(id, call);
  for (const { id } of [one, two]) await driver.remove(id, call);
});

test("a way out that a program inside made is left alone", async () => {
  const place = await plug(instance("tunnel", [[front, "10.86.1.9"]]));
  command(place, "ip", "link", "add", "tunnel", "type", "bridge");
  command(place, "ip", "link", "set", "tunnel", "up");
  command(place, "ip", "route", "replace", "default", "dev", "tunnel");
  await testHost().driver.converge(front, call);
  assert.match(command(place, "ip", "route", "show", "default"), /dev tunnel/);
  command(place, "ip", "link", "delete", "tunnel");
  command(place, "ip", "link", "set", "eth0", "down");
  await testHost().driver.converge(front, call);
  assert.equal(command(place, "ip", "route", "show", "default"), "", "it took itself off, which hinders nobody else");
  await testHost().driver.detach(instance("tunnel", []).id, call);
});

function wayOut(name: string): string {
  return /default via (\S+)/.exec(command(at(name), "ip", "route"))?.[1] ?? "none";
}
