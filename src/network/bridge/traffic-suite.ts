import assert from "node:assert/strict";
import { once } from "node:events";
import { Resolver } from "node:dns/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import type { PortSpec, PublishedPort, Routing } from "../contract.ts";
import { listOwned } from "./owned.ts";
import { instance, makeTestHost, network, type TestHost } from "./test-host.ts";
import { plugIn, type Plugged } from "./test-tap.ts";
import {
  addOtherMachine,
  ask,
  askUdp,
  command,
  removeOtherMachine,
  serve,
  serveUdp,
  untilClosed,
} from "./test-traffic.ts";

const call = backgroundCall();
export const front = network("front", "10.86.1.0/24");
const side = network("side", "10.86.2.0/24");
const back = network("back", "10.86.3.0/24", true);

const app = instance("app", [
  [back, "10.86.3.7"],
  [front, "10.86.1.7"],
]);

let host: TestHost;
const place: Record<string, string> = {};
const plugged = new Map<string, Plugged>();
const servers: { close(): void }[] = [];

/** Where packets of instances go, and where they do not: in containers (`netns`), or in machines among containers. */
export function trafficSuite(kind: PortSpec["kind"]): void {
  before(async () => {
    host = makeTestHost();
    const other = join(host.home.runDir, "other-machine");
    addOtherMachine(other);
    place["outside"] = other;
    for (const one of [front, side, back]) await host.driver.converge(one, call);
    const instances = [
      { ...instance("web-1", [[front, "10.86.1.5"]]), kind },
      // Always a container: the two kinds see no difference in each other.
      instance("web-2", [[front, "10.86.1.6"]]),
      { ...instance("guest", [[side, "10.86.2.5"]]), kind },
      { ...instance("db", [[back, "10.86.3.5"]]), kind },
      { ...app, kind },
    ];
    for (const one of instances) {
      await plug(one);
      servers.push(serve(at(one.hostname), 80, one.hostname));
    }
    servers.push(serve(other, 7, "outside"), serve("host", 9000, "host"));
  });

  afterEach(async () => {
    await host.driver.publish({ names: [], published: [] }, call);
  });

  after(async () => {
    for (const server of servers) server.close();
    for (const machine of plugged.values()) await machine.unplug();
    removeOtherMachine(at("outside"));
    await host.dispose();
  });

  inBothModes("instances of one network reach each other, those of different networks do not", async () => {
    assert.equal(await ask(at("web-2"), "10.86.1.5", 80), "web-1 10.86.1.6");
    assert.equal(await ask(at("app"), "10.86.3.5", 80), "db 10.86.3.7");
    const strangers = [
      ask(at("guest"), "10.86.1.5", 80),
      ask(at("web-1"), "10.86.2.5", 80),
      ask(at("web-1"), "10.86.3.5", 80),
      ask(at("db"), "10.86.1.5", 80),
      ask(at("outside"), "10.86.1.5", 80),
    ];
    assert.deepEqual(new Set(await Promise.all(strangers)), new Set(["nothing"]));
  });

  inBothModes("an instance reaches the world by the host's address, and the host's own services", async () => {
    assert.equal(await ask(at("web-1"), "192.0.2.9", 7), "outside 192.0.2.1");
    assert.equal(await ask(at("app"), "192.0.2.9", 7), "outside 192.0.2.1", "by its network that is not internal");
    assert.equal(await ask(at("web-1"), "10.86.1.1", 9000), "host 10.86.1.5");
  });

  void test("an internal network has no way out, also not to the host, but the host can look into it", async () => {
    // An instance that may change its own routes does not get any further.
    command(at("db"), "ip", "route", "add", "default", "via", "10.86.3.1");
    const ways = [
      ask(at("db"), "192.0.2.9", 7),
      ask(at("db"), "10.86.3.1", 9000),
      ask(at("db"), "192.0.2.1", 9000),
      ask(at("db"), "10.86.1.1", 9000),
    ];
    assert.deepEqual(new Set(await Promise.all(ways)), new Set(["nothing"]));
    assert.equal(await ask("host", "10.86.3.5", 80), "db 10.86.3.1");
  });

  inBothModes(
    "a published port answers on the host, to others and to instances, and keeps the client's address",
    async () => {
      await publish(tcp(8080, "10.86.1.5"));
      assert.equal(await ask("host", "127.0.0.1", 8080), "web-1 10.86.1.1");
      assert.equal(await ask("host", "192.0.2.1", 8080), "web-1 192.0.2.1");
      assert.equal(await ask(at("outside"), "192.0.2.1", 8080), "web-1 192.0.2.9");
      assert.equal(await ask(at("guest"), "192.0.2.1", 8080), "web-1 10.86.2.5");
      assert.equal(await ask(at("guest"), "10.86.2.1", 8080), "web-1 10.86.2.5", "by its own gateway");
      assert.equal(await ask(at("web-2"), "192.0.2.1", 8080), "web-1 10.86.1.1", "a neighbour, by the host and back");
      assert.equal(await ask(at("web-1"), "192.0.2.1", 8080), "web-1 10.86.1.1", "itself, by the host and back");
      assert.equal(await ask(at("db"), "192.0.2.1", 8080), "nothing", "internal networks reach no published port");
      await publish();
      assert.equal(await ask(at("outside"), "192.0.2.1", 8080), "nothing");
    },
  );

  void test("connections are spread over all targets in turn", async () => {
    await publish(tcp(8080, "10.86.1.5", "10.86.1.6"));
    const answers = new Map<string, number>();
    for (let count = 0; count < 6; count += 1) {
      const [name = ""] = (await ask(at("outside"), "192.0.2.1", 8080)).split(" ");
      answers.set(name, (answers.get(name) ?? 0) + 1);
    }
    assert.deepEqual(Object.fromEntries(answers), { "web-1": 3, "web-2": 3 });
  });

  void test("a port published on loopback is reached by the host alone, whatever a neighbour on the wire sends", async () => {
    await publish({ ...tcp(8081, "10.86.1.5"), hostAddress: "127.0.0.1" });
    assert.equal(await ask("host", "127.0.0.1", 8081), "web-1 10.86.1.1");
    assert.equal(await ask(at("outside"), "192.0.2.1", 8081), "nothing");
    assert.equal(await ask(at("guest"), "192.0.2.1", 8081), "nothing");
    // The neighbour sends packets for 127.0.0.1 over the wire.
    const wire = at("outside");
    command(wire, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1");
    for (const route of ["127.0.0.0/8", "127.0.0.1"])
      command(wire, "ip", "route", "del", "local", route, "table", "local");
    command(wire, "ip", "route", "add", "127.0.0.0/8", "via", "192.0.2.1", "src", "192.0.2.9");
    const gotIn = async (): Promise<boolean> => {
      const before = new Set(reachedLoopback());
      await ask(wire, "127.0.0.1", 8081);
      return reachedLoopback().some((connection) => !before.has(connection));
    };
    assert.equal(await gotIn(), false);
    // That this would work without the guard shows that the attempt above was a real one.
    const table = host.home.prefix.replace("-", "_");
    command("host", "nft", "flush", "chain", "inet", table, "guard");
    assert.equal(await gotIn(), true);
    command("host", "nft", "delete", "table", "inet", table);
  });

  void test("an instance cannot reach what listens on the host's loopback, nor speak with another's address", async () => {
    const web = at("web-1");
    await publish();
    command(web, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1");
    for (const route of ["127.0.0.0/8", "127.0.0.1"])
      command(web, "ip", "route", "del", "local", route, "table", "local");
    command(web, "ip", "route", "add", "127.0.0.0/8", "via", "10.86.1.1", "src", "10.86.1.5");
    assert.equal(await ask(web, "127.0.0.1", 9000), "nothing");
    command(web, "ip", "route", "del", "127.0.0.0/8");
    command(web, "ip", "address", "add", "10.86.2.99/32", "dev", "eth0");
    command(web, "ip", "route", "change", "default", "via", "10.86.1.1", "src", "10.86.2.99");
    const outside = serveUdp(at("outside"), 53, "outside");
    let received = 0;
    outside.on("message", () => (received += 1));
    await askUdp(web, "192.0.2.9", 53);
    assert.equal(received, 0, "with an address of another network");
    command(web, "ip", "route", "change", "default", "via", "10.86.1.1");
    command(web, "ip", "address", "del", "10.86.2.99/32", "dev", "eth0");
    assert.equal(await askUdp(web, "192.0.2.9", 53), "outside 192.0.2.1");
    assert.equal(received, 1, "with its own");
    outside.close();
    assert.equal(await ask(web, "192.0.2.9", 7), "outside 192.0.2.1");
  });

  void test("a connection outlives changes of its port, its target's leaving it, and a restart of the daemon", async () => {
    await publish(tcp(8080, "10.86.1.5"));
    const socket = connect(8080, "127.0.0.1");
    const received: string[] = [];
    socket.on("data", (chunk: Buffer) => received.push(chunk.toString()));
    const echo = async (text: string): Promise<void> => {
      socket.write(text);
      while (!received.join("").endsWith(text)) await once(socket, "data", { signal: AbortSignal.timeout(5000) });
    };
    await echo("one\n");
    await publish(tcp(8080, "10.86.1.5", "10.86.1.6"), tcp(8090, "10.86.1.6"));
    await echo("two\n");
    await publish(tcp(8080, "10.86.1.6"), udp("10.86.1.5"));
    await echo("three\n");
    await publish(tcp(8080, "10.86.1.6"), udp("10.86.1.6"));
    await echo("and a half\n");
    // Someone else's change, which a new daemon cannot tell from one of ours: it writes the whole table anew.
    command("host", "nft", "add", "table", "inet", "of_others");
    host.restart();
    await publish(tcp(8080, "10.86.1.6"));
    await echo("four\n");
    await publish();
    await echo("five\n");
    command("host", "nft", "delete", "table", "inet", "of_others");
    socket.destroy();
    assert.match(received.join(""), /^web-1 /);
  });

  void test("UDP is published, and follows its target also for a client that never pauses", async () => {
    const udpServers = [serveUdp(at("web-1"), 53, "web-1"), serveUdp(at("web-2"), 53, "web-2")];
    try {
      assert.equal(await askUdp(at("outside"), "192.0.2.1", 5353, 40_001), "nothing");
      await publish(udp("10.86.1.5"));
      assert.equal(
        await askUdp(at("outside"), "192.0.2.1", 5353, 40_001),
        "web-1 192.0.2.9",
        "it sent before, in vain",
      );
      assert.equal(await askUdp("host", "127.0.0.1", 5353, 40_002), "web-1 10.86.1.1");
      await publish(udp("10.86.1.6"));
      assert.equal(await askUdp(at("outside"), "192.0.2.1", 5353, 40_001), "web-2 192.0.2.9");
      assert.equal(await askUdp("host", "127.0.0.1", 5353, 40_002), "web-2 10.86.1.1");
    } finally {
      for (const server of udpServers) server.close();
    }
  });

  void test("names are answered in their own network, in turn, from the moment they are published until they are not", async () => {
    const names: Routing["names"] = [
      { network: front.id, name: "web", address: "10.86.1.5" },
      { network: front.id, name: "web-1", address: "10.86.1.5" },
      { network: front.id, name: "web.shop", address: "10.86.1.5" },
      { network: front.id, name: "web", address: "10.86.1.6" },
      { network: front.id, name: "web-2", address: "10.86.1.6" },
      { network: back.id, name: "db", address: "10.86.3.5" },
    ];
    await host.driver.publish({ names, published: [] }, call);
    await eventually(() => lookUp("10.86.1.1", "web"), "10.86.1.5 10.86.1.6");
    assert.equal(await lookUp("10.86.1.1", "web-2"), "10.86.1.6");
    assert.equal(await lookUp("10.86.1.1", "web.shop"), "10.86.1.5");
    assert.equal(await lookUp("10.86.1.1", "db"), "ENOTFOUND", "another network's name");
    assert.equal(await lookUp("10.86.3.1", "db"), "10.86.3.5");
    assert.equal(await lookUp("10.86.3.1", "example.com"), "ENOTFOUND", "an internal network has no outside");
    const first = new Set<string>();
    const resolver = resolverAt("10.86.1.1");
    for (let count = 0; count < 8; count += 1) first.add((await resolver.resolve4("web"))[0] ?? "");
    assert.equal(first.size, 2, "both addresses come first in turn");
    assert.deepEqual(await resolver.reverse("10.86.1.5"), ["web-1"], "the name that is the address's own");
    await host.driver.publish({ names: names.filter(({ address }) => address !== "10.86.1.5"), published: [] }, call);
    await eventually(() => lookUp("10.86.1.1", "web"), "10.86.1.6");
    assert.equal(await lookUp("10.86.1.1", "web-1"), "ENOTFOUND");
  });

  void test("an instance in two networks finds the names of both by its one resolver, and others cannot ask elsewhere", async () => {
    const names = [
      { network: front.id, name: "web", address: "10.86.1.5" },
      { network: back.id, name: "db", address: "10.86.3.5" },
    ];
    await host.driver.publish({ names, published: [] }, call);
    const { resolvers } = await host.driver.attach({ ...app, kind }, call);
    const [address = ""] = resolvers;
    await eventually(() => lookUp(address, "db"), "10.86.3.5");
    assert.equal(nslookup("app", address, "web"), "10.86.1.5");
    assert.equal(nslookup("app", address, "db"), "10.86.3.5");
    assert.equal(nslookup("db", "10.86.3.1", "db"), "10.86.3.5");
    assert.equal(nslookup("guest", "10.86.1.1", "web"), "nothing", "the resolver of another network");
    assert.equal(nslookup("web-2", "10.86.1.1", "web"), "10.86.1.5");
    assert.equal(nslookup("web-2", address, "db"), "nothing", "a resolver for two networks, by one that is in one");
    assert.equal(nslookup("outside", "10.86.1.1", "web"), "nothing");
  });

  void test("whoever is root in an instance cannot take over a neighbour's address, nor its gateway's", async () => {
    const thief = { ...instance("thief", [[front, "10.86.1.11"]]), kind };
    const thiefPlace = await plug(thief);
    const neighbour = at("web-2");
    const forget = (): void => void command(neighbour, "ip", "neigh", "flush", "all");
    const heard = (address: string): string => {
      const [line = ""] = command(neighbour, "ip", "neigh", "show", address).split("\n");
      return /lladdr (\S+)/.exec(line)?.[1] ?? "nobody";
    };
    assert.equal(await ask(thiefPlace, "10.86.1.6", 80), "web-2 10.86.1.11", "with its own it may");
    // An address that nobody has, claimed in ARP and used.
    command(thiefPlace, "ip", "address", "add", "10.86.1.77/24", "dev", "eth0");
    forget();
    assert.equal(await ask(neighbour, "10.86.1.77", 80), "nothing");
    assert.equal(heard("10.86.1.77"), "nobody");
    command(thiefPlace, "ip", "route", "add", "10.86.1.6", "dev", "eth0", "src", "10.86.1.77");
    assert.equal(await ask(thiefPlace, "10.86.1.6", 80), "nothing");
    command(thiefPlace, "ip", "route", "del", "10.86.1.6");
    // The gateway's, told to all without being asked.
    const gateway = macOfLink("host", bridgeOf(front.id));
    command(thiefPlace, "ip", "address", "add", "10.86.1.1/24", "dev", "eth0");
    command(thiefPlace, "busybox", "arping", "-U", "-c", "2", "-w", "2", "-I", "eth0", "10.86.1.1");
    forget();
    assert.equal(await ask(neighbour, "10.86.1.1", 9000), "host 10.86.1.6");
    assert.equal(heard("10.86.1.1"), gateway);
    command(thiefPlace, "ip", "address", "del", "10.86.1.1/24", "dev", "eth0");
    command(thiefPlace, "ip", "address", "del", "10.86.1.77/24", "dev", "eth0");
    // Another hardware address.
    assert.equal(await ask(thiefPlace, "10.86.1.6", 80), "web-2 10.86.1.11", "it was not harmed");
    const own = macOfLink(thiefPlace, "eth0");
    command(thiefPlace, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:99");
    assert.equal(await ask(thiefPlace, "10.86.1.6", 80), "nothing");
    command(thiefPlace, "ip", "link", "set", "eth0", "address", own);
    assert.equal(await ask(thiefPlace, "10.86.1.6", 80), "web-2 10.86.1.11");
    // That the theft would work without the guard shows that the attempts above were real ones.
    command("host", "nft", "flush", "chain", "bridge", host.home.prefix.replace("-", "_"), "guard");
    command(thiefPlace, "ip", "address", "add", "10.86.1.77/24", "dev", "eth0");
    const server = serve(thiefPlace, 80, "thief");
    forget();
    assert.equal(await ask(neighbour, "10.86.1.77", 80), "thief 10.86.1.6");
    server.close();
    const { routingIntact } = await host.driver.list(call);
    assert.equal(routingIntact, false, "that someone took the guard away is noticed");
    await host.driver.publish({ names: [], published: [] }, call);
    forget();
    assert.equal(await ask(neighbour, "10.86.1.77", 80), "nothing");
    if (kind === "netns") await untilClosed(thiefPlace);
    await unplug("thief");
    await host.driver.detach(thief.id, call);
  });

  void test("an instance may say where its own address is, and ask whether somebody has it already", async () => {
    const honest = { ...instance("honest", [[front, "10.86.1.12"]]), kind };
    const honestPlace = await plug(honest);
    const neighbour = at("web-2");
    const claim = ["replace", "10.86.1.12", "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale"];
    command(neighbour, "ip", "neigh", ...claim);
    command(honestPlace, "busybox", "arping", "-U", "-c", "1", "-w", "1", "-I", "eth0", "10.86.1.12");
    const known = command(neighbour, "ip", "neigh", "show", "10.86.1.12");
    assert.ok(known.includes(macOfLink(honestPlace, "eth0")), known);
    const isTaken = (): boolean => {
      try {
        command(honestPlace, "busybox", "arping", "-D", "-c", "1", "-w", "1", "-I", "eth0", "10.86.1.12");
        return false;
      } catch {
        return true;
      }
    };
    assert.equal(isTaken(), false);
    command("host", "ip", "address", "add", "10.86.1.12/32", "dev", bridgeOf(front.id));
    assert.equal(isTaken(), true);
    command("host", "ip", "address", "del", "10.86.1.12/32", "dev", bridgeOf(front.id));
    await unplug("honest");
    await host.driver.detach(honest.id, call);
  });
}

function bridgeOf(id: string): string {
  const link = listOwned(host.home).find((one) => one.includes(`(network ${id})`));
  return link?.split(" ")[1] ?? "";
}

function macOfLink(from: string, link: string): string {
  return /link\/ether (\S+)/.exec(command(from, "ip", "-o", "link", "show", "dev", link))?.[1] ?? "";
}

export const at = (name: string): string => place[name] ?? name;

function tcp(hostPort: number, ...addresses: string[]): PublishedPort {
  const targets = addresses.map((address) => ({ address, port: 80 }));
  return { hostAddress: "0.0.0.0", hostPort, protocol: "tcp", targets, holder: "shop/web" };
}

function udp(address: string): PublishedPort {
  return { ...tcp(5353), protocol: "udp", targets: [{ address, port: 53 }] };
}

async function publish(...published: PublishedPort[]): Promise<void> {
  assert.deepEqual(await host.driver.publish({ names: [], published }, call), { refused: [] });
}

/** With and without the kernel passing bridged packets by the rules for IPv4, as it does beside Docker or Kubernetes. */
function inBothModes(name: string, body: () => Promise<void>): void {
  for (const mode of ["0", "1"]) {
    void test(`${name} (br_netfilter ${mode === "1" ? "on" : "off"})`, async () => {
      command("host", "sysctl", "-qw", `net.bridge.bridge-nf-call-iptables=${mode}`);
      await body();
    });
  }
}

/** Attaches an instance and begins to live in it; the test's host knows it by its name from then on. */
export async function plug(spec: PortSpec): Promise<string> {
  const attachment = await host.driver.attach(spec, call);
  if (attachment.kind === "netns") place[spec.hostname] = attachment.path;
  else {
    const machine = plugIn(attachment, join(host.home.runDir, `machine-${spec.hostname}`));
    plugged.set(spec.hostname, machine);
    place[spec.hostname] = machine.place;
  }
  return at(spec.hostname);
}

export async function unplug(name: string): Promise<void> {
  await plugged.get(name)?.unplug();
  plugged.delete(name);
}

export function testHost(): TestHost {
  return host;
}

function resolverAt(address: string): Resolver {
  const resolver = new Resolver({ timeout: 1000, tries: 1 });
  resolver.setServers([address]);
  return resolver;
}

export async function lookUp(server: string, name: string): Promise<string> {
  try {
    return (await resolverAt(server).resolve4(name)).sort().join(" ");
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "error";
  }
}

/** The address of a name as a program in an instance gets it. */
function nslookup(from: string, server: string, name: string): string {
  try {
    const words = command(at(from), "timeout", "1", "busybox", "nslookup", "-type=a", name, server);
    return /Name:.*\nAddress: (\S+)/.exec(words)?.[1] ?? "nothing";
  } catch {
    return "nothing";
  }
}

async function eventually(look: () => Promise<string>, wanted: string): Promise<void> {
  let seen = await look();
  for (let attempt = 0; attempt < 100 && seen !== wanted; attempt += 1) {
    await call.clock.sleep(10);
    seen = await look();
  }
  assert.equal(seen, wanted);
}

/**
 * Connections of the other machine to the host's loopback, each by its port: the kernel remembers them for minutes, also
 * those of another file of tests.
 */
function reachedLoopback(): readonly string[] {
  const known = command("host", "cat", "/proc/net/nf_conntrack");
  return known.match(/src=192\.0\.2\.9 dst=127\.0\.0\.1 sport=\d+/g) ?? [];
}
