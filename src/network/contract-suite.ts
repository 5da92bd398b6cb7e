import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { instanceId, type NetworkId } from "../base/id.ts";
import type { Attachment, NetworkDriver, NetworkSpec, PortSpec, PublishedPort } from "./contract.ts";

/** A driver on a host without networks, and what a test does to it. */
export interface NetworkUnderTest {
  readonly driver: NetworkDriver;
  /** The daemon ends, however, and another one starts on the same host. */
  readonly restart: () => NetworkDriver;
  readonly dispose: () => Promise<void>;
}

/** What every network driver keeps. Whether packets go where they should is tested beside each driver. */
export function networkContract(name: string, make: () => Promise<NetworkUnderTest>): void {
  const call = backgroundCall();

  const behaviour = (what: string, body: (under: NetworkUnderTest) => Promise<void>): void => {
    void test(`network ${name}: ${what}`, async () => {
      const under = await make();
      try {
        await body(under);
      } finally {
        await under.dispose();
      }
    });
  };

  /** For instances of both kinds: in a namespace, and as machines with taps. */
  const portBehaviour = (what: string, body: (under: NetworkUnderTest, ports: Ports) => Promise<void>): void => {
    for (const kind of ["netns", "tap"] as const) {
      behaviour(`${what} (${kind})`, (under) => body(under, portsOfKind(kind)));
    }
  };

  behaviour("works on this host, and has nothing", async ({ driver }) => {
    const probe = await driver.probe(call);
    assert.ok(probe.ok, probe.detail);
    const { networks, ports, routingIntact } = await driver.list(call);
    assert.deepEqual({ networks, ports, routingIntact }, { networks: [], ports: [], routingIntact: true });
  });

  behaviour("a network converges and is removed, each as often as one likes", async ({ driver }) => {
    await driver.converge(front, call);
    await driver.converge(front, call);
    await driver.converge(back, call);
    assert.deepEqual(await networksOf(driver), [
      ["shop.back", "10.86.2.0/24", true],
      ["shop.front", "10.86.1.0/24", true],
    ]);
    await driver.remove(front.id, call);
    await driver.remove(front.id, call);
    assert.deepEqual(await networksOf(driver), [["shop.back", "10.86.2.0/24", true]]);
    await driver.remove(back.id, call);
    assert.deepEqual(await networksOf(driver), []);
  });

  behaviour("a network changes its subnet and its openness in place", async ({ driver }) => {
    await driver.converge(front, call);
    await driver.converge({ ...front, subnet: "10.86.9.0/24" }, call);
    assert.deepEqual(await networksOf(driver), [["shop.front", "10.86.9.0/24", true]]);
    await driver.converge({ ...front, subnet: "10.86.9.0/24", internal: true }, call);
    assert.deepEqual(await networksOf(driver), [["shop.front", "10.86.9.0/24", true]]);
  });

  behaviour("text that is not a subnet is refused and leaves nothing", async ({ driver }) => {
    await assert.rejects(driver.converge({ ...front, subnet: "10.86.1.7/24" }, call), (error) =>
      isFault(error, "invalid"),
    );
    assert.deepEqual(await networksOf(driver), []);
  });

  portBehaviour("an instance cannot be attached to a network that is not there", async ({ driver }, { web }) => {
    await assert.rejects(driver.attach(web, call), (error) => isFault(error, "precondition"));
    assert.deepEqual(await portsOf(driver), []);
  });

  portBehaviour("an instance is attached and detached, each as often as one likes", async ({ driver }, { web }) => {
    await driver.converge(front, call);
    const attachment = await driver.attach(web, call);
    assert.deepEqual(attachment.resolvers, ["10.86.1.1"]);
    assert.deepEqual(await driver.attach(web, call), attachment);
    assert.deepEqual(await portsOf(driver), [[web.id, true]]);
    await driver.detach(web.id, call);
    assert.deepEqual(await portsOf(driver), []);
    await driver.detach(web.id, call);
    assert.deepEqual(await driver.attach(web, call), attachment, "attached again at once, before all of it is gone");
    assert.deepEqual(await portsOf(driver), [[web.id, true]]);
    await driver.detach(web.id, call);
  });

  portBehaviour("instances in one network do not depend on each other", async ({ driver }, { web, db }) => {
    await driver.converge(front, call);
    const one = await driver.attach(web, call);
    const other = await driver.attach(db, call);
    assert.equal(new Set([one, other].flatMap(endsOf)).size, 2);
    await driver.detach(web.id, call);
    assert.deepEqual(await portsOf(driver), [[db.id, true]]);
  });

  portBehaviour(
    "an instance has all its networks, and one resolver that knows them all",
    async ({ driver }, { web, db2 }) => {
      await driver.converge(front, call);
      await driver.converge(back, call);
      const both = { ...web, nics: [...db2.nics, ...web.nics] };
      const attachment = await driver.attach(both, call);
      assert.equal(attachment.resolvers.length, 1);
      assert.deepEqual(await driver.attach(both, call), attachment);
      assert.deepEqual(await portsOf(driver), [[web.id, true]]);
      await driver.attach(web, call);
      assert.deepEqual(await portsOf(driver), [[web.id, true]], "it left one of them");
      await driver.detach(web.id, call);
      await driver.remove(back.id, call);
      await driver.remove(front.id, call);
      assert.deepEqual(await networksOf(driver), []);
    },
  );

  behaviour("a virtual machine gets taps with fixed hardware addresses, and its way out", async ({ driver }) => {
    await driver.converge(front, call);
    await driver.converge(back, call);
    const { web, db2 } = portsOfKind("tap");
    const machine: PortSpec = { ...web, nics: [...db2.nics, ...web.nics] };
    const attachment = await driver.attach(machine, call);
    assert.ok(attachment.kind === "tap");
    assert.equal(attachment.gateway, "10.86.1.1", "the network that is not internal");
    assert.deepEqual(
      attachment.taps.map(({ address }) => address),
      ["10.86.2.5", "10.86.1.5"],
    );
    for (const { mac } of attachment.taps) assert.match(mac, /^02(:[0-9a-f]{2}){5}$/);
    assert.equal(new Set(attachment.taps.flatMap(({ name: tap, mac }) => [tap, mac])).size, 4);
    assert.deepEqual(await driver.attach(machine, call), attachment);
    assert.deepEqual(await portsOf(driver), [[machine.id, true]]);
    await driver.detach(machine.id, call);
    assert.deepEqual(await portsOf(driver), []);
    const inside = await driver.attach({ ...machine, nics: db2.nics }, call);
    assert.ok(inside.kind === "tap");
    assert.equal(inside.gateway, undefined, "an internal network leads nowhere");
  });

  portBehaviour("a network is not removed from under an instance", async ({ driver }, { web }) => {
    await driver.converge(front, call);
    await driver.attach(web, call);
    await assert.rejects(driver.remove(front.id, call), (error) => isFault(error, "precondition"));
    assert.deepEqual(await portsOf(driver), [[web.id, true]]);
    await driver.detach(web.id, call);
    await driver.remove(front.id, call);
  });

  portBehaviour("what is not there is detached and removed at once", async ({ driver }, { web }) => {
    await driver.detach(web.id, call);
    await driver.remove(front.id, call);
  });

  portBehaviour(
    "routing is published, and again, and changed, and is intact throughout",
    async ({ driver }, { web }) => {
      await driver.converge(front, call);
      await driver.attach(web, call);
      const names = [{ network: front.id, name: "web", address: "10.86.1.5" }];
      for (const published of [[port(18_080)], [port(18_080)], [port(18_081), port(18_080)], []]) {
        assert.deepEqual(await driver.publish({ names, published }, call), { refused: [] });
        assert.equal((await driver.list(call)).routingIntact, true);
      }
    },
  );

  behaviour("who has a port keeps it; the other is told who, and gets it when it is free", async ({ driver }) => {
    await driver.converge(front, call);
    const mine = port(18_080, "shop/web");
    const theirs = port(18_080, "blog/web");
    const unrelated = port(18_081, "blog/web");
    await driver.publish({ names: [], published: [mine] }, call);
    const { refused } = await driver.publish({ names: [], published: [theirs, unrelated, mine] }, call);
    assert.deepEqual(
      refused.map(({ holder, port: wanted, fault }) => [holder, wanted.hostPort, fault.reason, fault.detail]),
      [["blog/web", 18_080, "conflict", { port: "18080", holder: "shop/web" }]],
    );
    assert.match(
      refused[0]?.fault.message ?? "",
      /tcp port 18080 cannot be published for blog\/web: shop\/web holds it/,
    );
    assert.deepEqual(await driver.publish({ names: [], published: [theirs, unrelated] }, call), { refused: [] });
  });

  behaviour("addresses and protocols of one port are apart, but every address includes each", async ({ driver }) => {
    await driver.converge(front, call);
    const apart: PublishedPort[] = [
      { ...port(18_080), hostAddress: "127.0.0.1" },
      { ...port(18_080), hostAddress: "127.0.0.2" },
      { ...port(18_080), protocol: "udp" },
    ];
    assert.deepEqual(await driver.publish({ names: [], published: apart }, call), { refused: [] });
    const { refused } = await driver.publish({ names: [], published: [...apart, port(18_080, "blog/web")] }, call);
    assert.deepEqual(
      refused.map(({ holder }) => holder),
      ["blog/web"],
    );
  });

  behaviour("nothing is published from an internal network", async ({ driver }) => {
    await driver.converge(back, call);
    const hidden = { ...port(18_080), targets: [{ address: "10.86.2.5", port: 80 }] };
    const { refused } = await driver.publish({ names: [], published: [hidden] }, call);
    assert.deepEqual(
      refused.map(({ fault }) => fault.reason),
      ["invalid"],
    );
  });

  portBehaviour("a new daemon finds everything, whole, and can take it away", async ({ driver, restart }, { web }) => {
    await driver.converge(front, call);
    await driver.converge(back, call);
    const attachment = await driver.attach(web, call);
    const routing = { names: [{ network: front.id, name: "web", address: "10.86.1.5" }], published: [port(18_080)] };
    await driver.publish(routing, call);
    const next = restart();
    assert.deepEqual(await next.list(call), await next.list(call));
    assert.deepEqual(await networksOf(next), [
      ["shop.back", "10.86.2.0/24", true],
      ["shop.front", "10.86.1.0/24", true],
    ]);
    assert.deepEqual(await portsOf(next), [[web.id, true]]);
    assert.equal((await next.list(call)).routingIntact, true);
    assert.deepEqual(await next.attach(web, call), attachment);
    assert.deepEqual(await next.publish(routing, call), { refused: [] });
    await next.publish({ names: [], published: [] }, call);
    await next.detach(web.id, call);
    await next.remove(front.id, call);
    await next.remove(back.id, call);
    const { networks, ports } = await next.list(call);
    assert.deepEqual({ networks, ports }, { networks: [], ports: [] });
  });
}

const front: NetworkSpec = { id: "shop.front" as NetworkId, subnet: "10.86.1.0/24", internal: false };
const back: NetworkSpec = { id: "shop.back" as NetworkId, subnet: "10.86.2.0/24", internal: true };

interface Ports {
  readonly web: PortSpec;
  readonly db: PortSpec;
  /** The same instance name as `db`, in the internal network. */
  readonly db2: PortSpec;
}

function portsOfKind(kind: PortSpec["kind"]): Ports {
  const web = {
    id: instanceId("shop", "web", 1, "0123abcd"),
    kind,
    hostname: "web-1",
    nics: [{ network: front.id, address: "10.86.1.5", names: ["web-1", "web"] }],
  };
  const db = {
    id: instanceId("shop", "db", 1, "0123abcd"),
    kind,
    hostname: "db-1",
    nics: [{ network: front.id, address: "10.86.1.6", names: ["db-1", "db"] }],
  };
  return { web, db, db2: { ...db, nics: [{ network: back.id, address: "10.86.2.5", names: ["db-1", "db"] }] } };
}

/** What an instance is connected by: names on the host that no other has. */
function endsOf(attachment: Attachment): readonly string[] {
  return attachment.kind === "netns" ? [attachment.path] : attachment.taps.map(({ name }) => name);
}

function port(hostPort: number, holder = "shop/web"): PublishedPort {
  const targets = [{ address: "10.86.1.5", port: 80 }];
  return { hostAddress: "0.0.0.0", hostPort, protocol: "tcp", targets, holder };
}

async function networksOf(driver: NetworkDriver): Promise<[string, string, boolean][]> {
  const { networks } = await driver.list(backgroundCall());
  const shown = networks.map(({ id, subnet, intact }): [string, string, boolean] => [id, subnet, intact]);
  return shown.sort(([left], [right]) => (left < right ? -1 : 1));
}

async function portsOf(driver: NetworkDriver): Promise<[string, boolean][]> {
  const { ports } = await driver.list(backgroundCall());
  return ports
    .map(({ id, intact }): [string, boolean] => [id, intact])
    .sort(([left], [right]) => (left < right ? -1 : 1));
}
