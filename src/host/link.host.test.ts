import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { isFault } from "../base/fault.ts";
import {
  addAddressRequest,
  createBridgeRequests,
  createVethRequests,
  removeAddressRequest,
  removeDefaultRouteRequest,
  removeLinkRequest,
  RouteSocket,
  setDefaultRouteRequest,
  setLinkRequest,
} from "./link.ts";
import { createNamespace, inNamespace, isNamespace, listNamespaces, removeNamespace } from "./netns.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "link-"));
});

afterEach(() => {
  for (const path of listNamespaces(directory)) removeNamespace(path);
  using socket = new RouteSocket();
  for (const link of socket.links()) {
    if (link.name.startsWith("lt-")) socket.do(removeLinkRequest(link.name));
  }
  rmSync(directory, { recursive: true });
});

const ownNamespace = (): string => readlinkSync("/proc/thread-self/ns/net");

test("two namespaces on a bridge reach each other and the host", () => {
  using host = new RouteSocket();
  host.do(...createBridgeRequests({ name: "lt-br", mac: "02:00:00:00:00:01", mtu: 1400, alias: "network a.b" }));
  const bridge = host.link("lt-br");
  assert.ok(bridge);
  assert.deepEqual(
    [bridge.kind, bridge.mtu, bridge.mac, bridge.up, bridge.alias],
    ["bridge", 1400, "02:00:00:00:00:01", true, "network a.b"],
  );
  host.do(addAddressRequest(bridge.index, "10.99.0.1", 24));
  for (const ordinal of [2, 3]) {
    const path = join(directory, `ns${ordinal}`);
    using inside = createNamespace(path, () => new RouteSocket());
    const namespaceFd = openSync(path, "r");
    const peer = { name: "eth0", mac: `02:00:00:00:00:0${ordinal}`, namespaceFd };
    host.do(...createVethRequests({ name: `lt-${ordinal}`, master: bridge.index, mtu: 1400, alias: "x", peer }));
    closeSync(namespaceFd);
    const eth0 = inside.link("eth0");
    assert.ok(eth0);
    assert.equal(eth0.mac, peer.mac);
    inside.do(
      setLinkRequest("eth0", { up: true }),
      addAddressRequest(eth0.index, `10.99.0.${ordinal}`, 24),
      setDefaultRouteRequest("10.99.0.1", eth0.index),
    );
    assert.deepEqual(
      inside.routes().find(({ prefixLength }) => prefixLength === 0),
      { destination: "0.0.0.0", prefixLength: 0, metric: 0, gateway: "10.99.0.1", index: eth0.index },
    );
  }
  assert.equal(host.link("lt-2")?.master, bridge.index);
  for (const address of ["10.99.0.1", "10.99.0.2"]) {
    inNamespace(join(directory, "ns3"), () => execFileSync("busybox", ["ping", "-c1", "-W2", address]));
  }
  using inside = inNamespace(join(directory, "ns3"), () => new RouteSocket());
  const way = inside.routes().find(({ prefixLength }) => prefixLength === 0);
  assert.ok(way);
  for (let times = 0; times < 2; times += 1) inside.do(removeDefaultRouteRequest(way));
  assert.ok(inside.routes().every(({ prefixLength }) => prefixLength > 0));
});

test("asking for the same again changes nothing, and removing what is not there is success", () => {
  using socket = new RouteSocket();
  socket.do(...createBridgeRequests({ name: "lt-br", mac: "02:00:00:00:00:01", mtu: 1500, alias: "a" }));
  const index = socket.link("lt-br")?.index ?? 0;
  socket.do(addAddressRequest(index, "10.99.1.1", 24));
  socket.do(addAddressRequest(index, "10.99.1.1", 24));
  assert.deepEqual(
    socket.addresses().filter((address) => address.index === index),
    [{ index, address: "10.99.1.1", prefixLength: 24 }],
  );
  socket.do(removeAddressRequest(index, "10.99.1.1", 24));
  socket.do(removeAddressRequest(index, "10.99.1.1", 24));
  socket.do(removeLinkRequest("lt-br"));
  socket.do(removeLinkRequest("lt-br"));
  assert.equal(socket.link("lt-br"), undefined);
});

test("a refusal names what was attempted, the errno and the kernel's words; later requests are still done", () => {
  using socket = new RouteSocket();
  const bridge = createBridgeRequests({ name: "lt-br", mac: "02:00:00:00:00:01", mtu: 1500, alias: "a" });
  assert.throws(
    () => socket.do(addAddressRequest(99_999, "10.99.1.1", 24), ...bridge),
    (error) => isFault(error) && error.detail["errno"] === "ENODEV" && error.message.includes("10.99.1.1/24"),
  );
  assert.equal(socket.link("lt-br")?.up, true);
});

test("an exception inside a namespace leaves the thread where it was", () => {
  const before = ownNamespace();
  const path = join(directory, "ns");
  const boom = new Error("boom");
  const thrower = (): never => {
    throw boom;
  };
  assert.throws(() => createNamespace(path, thrower), boom);
  assert.equal(ownNamespace(), before);
  assert.equal(isNamespace(path), false, "a creation that failed leaves no namespace behind");
  const inside = createNamespace(path, ownNamespace);
  assert.notEqual(inside, before);
  assert.throws(() => inNamespace(path, thrower), boom);
  assert.equal(ownNamespace(), before);
  assert.throws(
    () => inNamespace(path, async () => {}),
    (error) => isFault(error, "bug"),
  );
  assert.equal(ownNamespace(), before);
  assert.equal(inNamespace(path, ownNamespace), inside);
});

test("a namespace can be made once, removed twice, and is found by its directory", () => {
  const path = join(directory, "ns");
  createNamespace(path, () => {});
  assert.throws(
    () => createNamespace(path, () => {}),
    (error) => isFault(error, "already-exists"),
  );
  assert.deepEqual(listNamespaces(directory), [path]);
  removeNamespace(path);
  removeNamespace(path);
  assert.deepEqual(listNamespaces(directory), []);
  assert.throws(
    () => inNamespace(path, () => {}),
    (error) => isFault(error, "not-found"),
  );
});
