import { closeSync, openSync } from "node:fs";
import { shortHash } from "../../base/id.ts";
import {
  addAddressRequest,
  createVethRequests,
  forgetBehindRequest,
  type Link,
  reflectRequest,
  removeAddressRequest,
  removeDefaultRouteRequest,
  removeLinkRequest,
  RouteSocket,
  setDefaultRouteRequest,
  setLinkRequest,
  startLinkRequests,
} from "../../host/link.ts";
import { createNamespace, inNamespace, isNamespace } from "../../host/netns.ts";
import { createTap } from "../../host/tap.ts";
import { writeSysctl } from "./forwarding.ts";

/** One interface of an instance, with everything about it decided. */
export interface Wire {
  /** Our end: the veth's or the tap itself. */
  readonly linkName: string;
  readonly bridge: Link;
  readonly mac: string;
  readonly address: string;
  readonly prefixLength: number;
  /** For people who look at the host's links: the instance's id. */
  readonly alias: string;
}

/** Where packets go that no network of the instance takes: by the nic at this position, to this gateway. */
export interface WayOut {
  readonly position: number;
  readonly gateway: string;
}

/**
 * A MAC that derives from network and address: when an instance is replaced by another with the same address, what its
 * neighbours remember stays true. Locally administered, unicast.
 */
export function macOf(network: string, address: string): string {
  const digits = shortHash(`${network} ${address}`, 10);
  return `02:${digits.match(/../g)?.join(":")}`;
}

/**
 * Makes the namespace `path` have these interfaces (`eth0`, `eth1`, … in this order), or mends it so that it has.
 * Synchronous, and about 2.5 ms for a new one with one interface.
 */
export function wireNamespace(
  path: string,
  wires: readonly Wire[],
  wayOut: WayOut | undefined,
  host: RouteSocket,
): void {
  const fresh = !isNamespace(path);
  using inside = fresh ? createNamespace(path, prepareNamespace) : inNamespace(path, () => new RouteSocket());
  const namespaceFd = openSync(path, "r");
  try {
    for (const [position, wire] of wires.entries()) {
      const link = host.link(wire.linkName);
      // Beside a new namespace, a link of that name belongs to an old one that the kernel has not taken down yet.
      if (link !== undefined && fresh) host.do(removeLinkRequest(wire.linkName));
      if (link === undefined || fresh) connect(wire, `eth${position}`, namespaceFd, host);
      else if (link.master !== wire.bridge.index || !link.up) mendPort(wire, host);
      configure(wire, `eth${position}`, inside);
    }
  } finally {
    closeSync(namespaceFd);
  }
  leadOut(inside, wires.length, wayOut);
}

/**
 * Changes the way out of a namespace that is there already, with `nics` interfaces; `undefined` takes it away. Where a
 * program inside took link or address away, so that no way leads out, that stays as it is: the network must not suffer.
 */
export function routeNamespace(path: string, nics: number, wayOut: WayOut | undefined): void {
  using inside = inNamespace(path, () => new RouteSocket());
  leadOut(inside, nics, wayOut, ["ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EINVAL"]);
}

/** Makes one tap for each wire, ports of their bridges, that `ownerUid` may open. */
export function wireTaps(wires: readonly Wire[], ownerUid: number, host: RouteSocket): void {
  for (const wire of wires) {
    createTap(wire.linkName, ownerUid);
    host.do(
      setLinkRequest(wire.linkName, { mtu: wire.bridge.mtu, master: wire.bridge.index }),
      ...startLinkRequests(wire.linkName, wire.alias),
      reflectRequest(wire.linkName),
    );
  }
}

/**
 * Takes its addresses from a namespace that was given up. The kernel keeps it, with its links, as long as it tries to end
 * a connection in it, which may be minutes; until then it must not answer for addresses that others have by now.
 */
export function silenceNamespace(path: string, linkNames: readonly string[], host: RouteSocket): void {
  inNamespace(path, () => {
    using inside = new RouteSocket();
    const ours = inside.addresses().filter(({ address }) => !address.startsWith("127."));
    inside.do(...ours.map((one) => removeAddressRequest(one.index, one.address, one.prefixLength)));
  });
  host.do(...linkNames.map(forgetBehindRequest));
}

/**
 * What every instance's namespace starts with: loopback, and what users of Docker are used to: programs without
 * privileges may listen on low ports and send pings. IPv6 exists on loopback only, as the networks have none. Nothing is
 * forwarded between its networks: a new namespace begins as the machine's first one is, which forwards.
 */
function prepareNamespace(): RouteSocket {
  writeSysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
  writeSysctl("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
  writeSysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
  writeSysctl("/proc/sys/net/ipv4/ip_forward", "0");
  writeSysctl("/proc/sys/net/ipv6/conf/all/forwarding", "0");
  const socket = new RouteSocket();
  try {
    socket.do(setLinkRequest("lo", { up: true }));
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
  return socket;
}

/** A default route by another link than ours, such as a tunnel, is of a program inside, and its business. */
function leadOut(inside: RouteSocket, nics: number, wayOut: WayOut | undefined, accept: readonly string[] = []): void {
  const links = Array.from({ length: nics }, (_, position) => inside.link(`eth${position}`)?.index);
  const ways = inside.routes().filter(({ prefixLength }) => prefixLength === 0);
  const ours = ways.filter(({ index }) => index !== undefined && links.includes(index));
  const wrong = ours.filter(({ gateway }) => gateway !== wayOut?.gateway);
  const link = wayOut === undefined ? undefined : links[wayOut.position];
  const isMissing = ways.length === wrong.length;
  inside.do(
    // First the new one, which takes the place of the old: no moment is without.
    ...(wayOut === undefined || link === undefined || !isMissing
      ? []
      : [{ ...setDefaultRouteRequest(wayOut.gateway, link), accept }]),
    ...wrong.map(removeDefaultRouteRequest),
  );
}

function connect(wire: Wire, name: string, namespaceFd: number, host: RouteSocket): void {
  host.do(
    ...createVethRequests({
      name: wire.linkName,
      master: wire.bridge.index,
      mtu: wire.bridge.mtu,
      alias: wire.alias,
      peer: { name, mac: wire.mac, namespaceFd },
    }),
  );
}

function mendPort(wire: Wire, host: RouteSocket): void {
  host.do(
    setLinkRequest(wire.linkName, { master: wire.bridge.index, mtu: wire.bridge.mtu }),
    ...startLinkRequests(wire.linkName, wire.alias),
    reflectRequest(wire.linkName),
  );
}

function configure(wire: Wire, name: string, inside: RouteSocket): void {
  const link = inside.link(name);
  if (link === undefined) return;
  const wrong = inside
    .addresses()
    .filter(({ index, address }) => index === link.index && address !== wire.address)
    .map(({ index, address, prefixLength }) => removeAddressRequest(index, address, prefixLength));
  inside.do(
    ...wrong,
    ...(link.mac === wire.mac ? [] : [setLinkRequest(name, { mac: wire.mac })]),
    setLinkRequest(name, { up: true }),
    addAddressRequest(link.index, wire.address, wire.prefixLength),
  );
}
