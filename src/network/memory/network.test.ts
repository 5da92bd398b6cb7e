import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import type { NetworkId } from "../../base/id.ts";
import { networkContract } from "../contract-suite.ts";
import { MemoryHost, MemoryNetwork } from "./network.ts";

networkContract("memory", async () => {
  const host = new MemoryHost();
  return { driver: new MemoryNetwork(host), restart: () => new MemoryNetwork(host), dispose: async () => {} };
});

test("a port that a program of the host holds is refused by that program's name", async () => {
  const host = new MemoryHost();
  const driver = new MemoryNetwork(host);
  host.occupied.set("tcp 80", "nginx (pid 812)");
  const published = [
    { hostAddress: "0.0.0.0", hostPort: 80, protocol: "tcp" as const, targets: [], holder: "shop/web" },
  ];
  const { refused } = await driver.publish({ names: [], published }, backgroundCall());
  assert.equal(refused[0]?.fault.detail["holder"], "nginx (pid 812)");
});

test("damage is seen until the same is asked for again", async () => {
  const host = new MemoryHost();
  const driver = new MemoryNetwork(host);
  const call = backgroundCall();
  const network = { id: "shop.front" as NetworkId, subnet: "10.86.1.0/24", internal: false };
  await driver.converge(network, call);
  host.damaged.add(network.id).add("routing");
  assert.deepEqual(
    (await driver.list(call)).networks.map(({ intact }) => intact),
    [false],
  );
  await driver.converge(network, call);
  assert.deepEqual(
    (await driver.list(call)).networks.map(({ intact }) => intact),
    [true],
  );
  assert.equal((await driver.list(call)).routingIntact, false);
  await driver.publish({ names: [], published: [] }, call);
  assert.equal((await driver.list(call)).routingIntact, true);
});
