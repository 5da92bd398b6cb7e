import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { listOwned } from "./owned.ts";
import { instance, makeTestHost, network, type TestHost } from "./test-host.ts";
import { addOtherMachine, command, removeOtherMachine } from "./test-traffic.ts";

const call = backgroundCall();
const front = network("front", "10.86.1.0/24");
const web = instance("web", [[front, "10.86.1.5"]]);

let host: TestHost;

/** Two machines on links of different kinds: a bare one, and a bridge with a port. */
beforeEach(() => {
  host = makeTestHost();
  command("host", "sysctl", "-qw", "net.ipv4.ip_forward=0");
  addOtherMachine(machine("left"), "left", "192.0.2");
  command("host", "ip", "link", "add", "right", "type", "bridge");
  addOtherMachine(machine("right"), "right-port", "198.51.100");
  command("host", "ip", "address", "flush", "dev", "right-port");
  command("host", "ip", "link", "set", "right-port", "master", "right");
  command("host", "ip", "address", "add", "198.51.100.1/24", "dev", "right");
  command("host", "ip", "link", "set", "right", "up");
});

afterEach(async () => {
  if (existsSync(machine("later"))) removeOtherMachine(machine("later"), "later");
  removeOtherMachine(machine("left"), "left");
  removeOtherMachine(machine("right"), "right-port");
  command("host", "ip", "link", "delete", "right");
  command("host", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0");
  await host.driver.publish({ names: [], published: [] }, call);
  await host.dispose();
});

function machine(name: string): string {
  return join(host.home.runDir, `machine-${name}`);
}

function reaches(from: string, address: string): boolean {
  try {
    command(from, "busybox", "ping", "-c", "1", "-W", "1", address);
    return true;
  } catch {
    return false;
  }
}

/** Whether the machine on the left reaches the one on the right, by this one. */
function isRouter(): boolean {
  return reaches(machine("left"), "198.51.100.9");
}

function forwarding(link?: string): string {
  const setting = link === undefined ? "ip_forward" : `conf/${link}/forwarding`;
  return readFileSync(`/proc/sys/net/ipv4/${setting}`, "utf8").trim();
}

test("a machine that was no router does not become one, whatever its links are, and goes on routing IPv6", async () => {
  const [left, right] = [machine("left"), machine("right")];
  for (const [place, link, prefix] of [
    [left, "left", "fd00:1"],
    [right, "right", "fd00:2"],
  ] as const) {
    command("host", "ip", "address", "add", `${prefix}::1/64`, "dev", link, "nodad");
    command(place, "ip", "address", "add", `${prefix}::9/64`, "dev", "eth0", "nodad");
    command(place, "ip", "route", "add", "default", "via", `${prefix}::1`);
  }
  command("host", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1");
  await host.driver.converge(front, call);
  const attachment = await host.driver.attach(web, call);
  assert.ok(attachment.kind === "netns");
  for (const address of ["192.0.2.9", "198.51.100.9"]) assert.ok(reaches(attachment.path, address), address);
  assert.equal(isRouter(), false);
  // Links first find out whether somebody has their own addresses.
  let tries = 0;
  while (!reaches(left, "fd00:2::9") && tries < 10) tries += 1;
  assert.ok(tries < 10, "IPv6 is not ours to judge");
  // That it would be one without the guard shows that the attempt above was a real one.
  command("host", "nft", "flush", "chain", "inet", host.home.prefix.replace("-", "_"), "forward");
  assert.equal(isRouter(), true);
  await host.driver.publish({ names: [], published: [] }, call);
  assert.equal(isRouter(), false);
  await host.driver.detach(web.id, call);
  await host.driver.remove(front.id, call);
  assert.equal(forwarding(), "0");
  assert.equal(isRouter(), false);
});

test("what came later is forwarded, and stays so after the last network; the others are guarded until it is gone", async () => {
  await host.driver.converge(front, call);
  addOtherMachine(machine("later"), "later", "203.0.113");
  assert.ok(reaches(machine("later"), "192.0.2.9"));
  await host.driver.remove(front.id, call);
  assert.equal(forwarding(), "1");
  assert.ok(reaches(machine("later"), "192.0.2.9"));
  assert.equal(isRouter(), false);
  assert.ok(listOwned(host.home).every((one) => one.startsWith("table ")));
  // A daemon of later knows what was before, as well when it has networks again.
  host.restart();
  await host.driver.converge(front, call);
  assert.equal(isRouter(), false);
  await host.driver.remove(front.id, call);
  removeOtherMachine(machine("later"), "later");
  await host.driver.publish({ names: [], published: [] }, call);
  assert.equal(forwarding(), "0");
  assert.deepEqual(listOwned(host.home), []);
});

test("links that forward by settings of their own do so before, with and after us", async () => {
  for (const link of ["left", "right"]) command("host", "sysctl", "-qw", `net/ipv4/conf/${link}/forwarding=1`);
  assert.equal(isRouter(), true);
  await host.driver.converge(front, call);
  assert.equal(isRouter(), true);
  await host.driver.remove(front.id, call);
  assert.equal(isRouter(), true);
  assert.deepEqual([forwarding(), forwarding("left"), forwarding("right-port")], ["0", "1", "0"]);
});
