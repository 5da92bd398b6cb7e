import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import type { PortSpec } from "../contract.ts";
import { listOwned, resolverProcesses } from "./owned.ts";
import { instance, makeTestHost, network, type TestHost } from "./test-host.ts";
import { command } from "./test-traffic.ts";

const call = backgroundCall();
const front = network("front", "10.86.1.0/24");
const back = network("back", "10.86.2.0/24", true);

let host: TestHost;

beforeEach(() => {
  host = makeTestHost();
});

afterEach(async () => {
  await host.dispose();
});

/** Addresses of a network's bridge: its gateway, and resolvers for several networks. */
function addressesOf(id: string): readonly string[] {
  const link = listOwned(host.home).find((one) => one.includes(`(network ${id})`));
  const shown = command("host", "ip", "-4", "-o", "address", "show", "dev", link?.split(" ")[1] ?? "");
  return [...shown.matchAll(/inet ([0-9.]+)/g)].map(([, address = ""]) => address);
}

async function attach(port: PortSpec): Promise<string> {
  const { resolvers } = await host.driver.attach(port, call);
  return resolvers.join();
}

test("a resolver for several networks goes with its last instance, and gives its address back", async () => {
  await host.driver.converge(front, call);
  // More sets of networks, one after the other, than there are addresses for resolvers.
  for (let turn = 2; turn < 12; turn += 1) {
    const other = network(`other-${turn}`, `10.86.${turn}.0/24`);
    await host.driver.converge(other, call);
    const both = (name: string, last: number): PortSpec =>
      instance(name, [
        [front, `10.86.1.${last}`],
        [other, `10.86.${turn}.${last}`],
      ]);
    const [one, two] = [both("one", 5), both("two", 6)];
    assert.equal(await attach(one), "10.86.1.254");
    assert.equal(await attach(two), "10.86.1.254");
    assert.equal(resolverProcesses(host.home).length, 3);
    await host.driver.detach(one.id, call);
    assert.equal(resolverProcesses(host.home).length, 3);
    await host.driver.detach(two.id, call);
    assert.equal(resolverProcesses(host.home).length, 2);
    assert.deepEqual(addressesOf(front.id), ["10.86.1.1"]);
    await host.driver.remove(other.id, call);
  }
});

test("a resolver that is given up while another instance comes for it runs on", async () => {
  await host.driver.converge(front, call);
  await host.driver.converge(back, call);
  const nics = [
    [front, "10.86.1.5"],
    [back, "10.86.2.5"],
  ] as const;
  const [old, next] = [instance("old", nics), instance("next", nics)];
  const address = await attach(old);
  for (let round = 0; round < 4; round += 1) {
    const [first, second] = round % 2 === 0 ? [old, next] : [next, old];
    const [, after] = await Promise.all([host.driver.detach(first.id, call), attach(second)]);
    assert.equal(after, address);
    assert.equal(resolverProcesses(host.home).length, 3);
    const { networks } = await host.driver.list(call);
    assert.ok(networks.every(({ intact }) => intact));
  }
});

test("a machine that leaves a network while it runs keeps the resolver that its guest was told of", async () => {
  await host.driver.converge(front, call);
  await host.driver.converge(back, call);
  const machine: PortSpec = {
    ...instance("machine", [
      [front, "10.86.1.5"],
      [back, "10.86.2.5"],
    ]),
    kind: "tap",
  };
  const told = await attach(machine);
  const less = { ...machine, nics: machine.nics.slice(0, 1) };
  for (let times = 0; times < 2; times += 1) {
    assert.equal(await attach(less), "10.86.1.1");
    host.restart();
  }
  assert.deepEqual(addressesOf(front.id), ["10.86.1.1", told]);
  assert.equal(resolverProcesses(host.home).length, 3);
  await host.driver.detach(machine.id, call);
  assert.deepEqual(addressesOf(front.id), ["10.86.1.1"]);
  assert.equal(resolverProcesses(host.home).length, 2);
});
