import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import { type Home, linkName, tableName } from "../../base/home.ts";
import type { InstanceId, NetworkId } from "../../base/id.ts";
import {
  addAddressRequest,
  createBridgeRequests,
  type Link,
  removeAddressRequest,
  RouteSocket,
  setLinkRequest,
} from "../../host/link.ts";
import { isNamespace, listNamespaces, removeNamespace } from "../../host/netns.ts";
import { run } from "../../host/process.ts";
import { formatSubnet, gatewayOf, parseSubnet, subnetHolds } from "../address.ts";
import type {
  Attachment,
  NetworkDriver,
  NetworkFacts,
  NetworkSpec,
  PortSpec,
  PublishedPort,
  RefusedPort,
  Routing,
} from "../contract.ts";
import {
  enableForwarding,
  type ForwardingRecord,
  guardedUplinks,
  isForwarding,
  restoreForwarding,
  writeSysctl,
} from "./forwarding.ts";
import type { GuardedLink } from "./port-guard.ts";
import { probeBridge } from "./probe.ts";
import { forgetStaleUdp, Publication } from "./publication.ts";
import { Records } from "./record.ts";
import { Resolvers } from "./resolver.ts";
import type { Ruleset } from "./ruleset.ts";
import { type PortRecord, SharedResolvers } from "./shared-resolver.ts";
import { type AppliedRuleset, Table } from "./table.ts";
import { macOf, routeNamespace, silenceNamespace, type WayOut, type Wire, wireNamespace, wireTaps } from "./wiring.ts";

/** `unfinished`: it is being made so, or that was interrupted, and parts of the host may be as they were before. */
interface NetworkRecord extends NetworkSpec {
  readonly unfinished?: true;
}

const networkAlias = "network ";
const instanceAlias = "instance ";
const defaultMtu = 1500;
/** The kernel takes links down with their namespace within some 30 ms; one that is there after this is removed itself. */
const leavingMs = 2000;

/**
 * Linux bridges: one for each network, veth pairs or taps for instances, nftables for all, and dnsmasq for
 * names. All of it lives in the kernel and in processes of their own, and goes on when the daemon ends.
 *
 * Everything but starting and ending resolvers, and removing links, is synchronous, so no two calls ever see each other's
 * half-made state and no lock is needed.
 */
export class BridgeNetwork implements NetworkDriver {
  readonly name = "bridge";
  readonly #home: Home;
  readonly #route = new RouteSocket();
  readonly #namespaceDirectory: string;
  readonly #networks: Records<NetworkRecord>;
  readonly #ports: Records<PortRecord>;
  readonly #shared: SharedResolvers;
  readonly #forwarding: Records<ForwardingRecord>;
  readonly #published: Records<readonly PublishedPort[]>;
  readonly #resolvers: Resolvers;
  readonly #table: Table;
  readonly #publication = new Publication();
  /** When instances were detached whose links the kernel may still be taking down. */
  readonly #leaving = new Map<InstanceId, number>();

  constructor(home: Home) {
    this.#home = home;
    const directory = join(home.runDir, "network");
    this.#namespaceDirectory = join(home.runDir, "netns");
    mkdirSync(this.#namespaceDirectory, { recursive: true, mode: 0o755 });
    this.#networks = new Records(join(directory, "network"));
    this.#ports = new Records(join(directory, "port"));
    this.#shared = new SharedResolvers(new Records(join(directory, "several")), this.#ports);
    const state = join(directory, "state");
    this.#forwarding = new Records(state);
    this.#published = new Records(state);
    this.#table = new Table(tableName(home), new Records<AppliedRuleset>(state));
    this.#resolvers = new Resolvers(directory);
  }

  async probe(call: Call): Promise<Probe> {
    return await probeBridge(tableName(this.#home), call);
  }

  async converge(network: NetworkSpec, call: Call): Promise<void> {
    const before = this.#networks.get(network.id);
    const moved = before !== undefined && before.subnet !== network.subnet;
    if (moved) await this.#stopResolvers(network.id, call);
    const gateway = gatewayOf(network.subnet);
    const begun = this.#begin(network);
    const bridge = this.#convergeBridge(network, gateway);
    // For connections from the host's own loopback that a published port leads here; see `ruleset.ts`.
    writeSysctl(`/proc/sys/net/ipv4/conf/${bridge}/route_localnet`, network.internal ? "0" : "1");
    if (!network.internal) enableForwarding(this.#route, this.#forwarding);
    this.#applyTable();
    this.#routeInstances(network.id);
    await this.#resolvers.ensure({ address: gateway, networks: [network.id], internal: network.internal }, call);
    await this.#dropIdleResolvers(call);
    for (const resolver of this.#shared.knowing(network.id)) await this.#resolvers.ensure(resolver, call);
    // Not when it was removed, or is being changed once more, meanwhile.
    if (this.#networks.get(network.id) === begun) this.#networks.put(network.id, network);
  }

  async remove(id: NetworkId, call: Call): Promise<void> {
    for (const port of this.#ports.values()) {
      if (!port.nics.some(({ network }) => network === id)) continue;
      throw new Fault("precondition", `remove network ${id}: instance ${port.id} is attached to it`);
    }
    await this.#stopResolvers(id, call);
    await this.#removeLink(this.#bridgeName(id), call);
    this.#networks.remove(id);
    this.#resolvers.forgetNames(id);
    this.#applyTable();
  }

  async attach(port: PortSpec, call: Call): Promise<Attachment> {
    const networks = port.nics.map(({ network }) => this.#network(network, port.id));
    const before = this.#ports.get(port.id);
    this.#ports.put(port.id, this.#shared.remembering(port, before));
    this.#leaving.delete(port.id);
    await this.#dropUnwanted(port, before, call);
    const resolvers = await this.#resolverFor(networks, this.#wayOut(port)?.position ?? 0, call);
    if (before !== undefined) await this.#dropIdleResolvers(call);
    const out = this.#wayOut(port);
    // Before the links, which must not speak unguarded.
    this.#applyTable();
    const wires = port.nics.map((nic, at) => this.#wire(port.id, nic.address, networks[at] as NetworkSpec));
    if (port.kind === "tap") {
      wireTaps(wires, port.tapOwnerUid ?? 0, this.#route);
      const taps = wires.map(({ linkName: name, mac, address, prefixLength }) => {
        return { name, mac, address, prefixLength };
      });
      return { kind: "tap", taps, resolvers, ...(out === undefined ? {} : { gateway: out.gateway }) };
    }
    const path = this.#namespacePath(port.id);
    wireNamespace(path, wires, out, this.#route);
    return { kind: "netns", path, resolvers };
  }

  async detach(id: InstanceId, call: Call): Promise<void> {
    const path = this.#namespacePath(id);
    const port = this.#ports.get(id);
    if (isNamespace(path)) {
      // The links go with the namespace, later and without anyone waiting; removing one at once blocks for 30 ms.
      this.#leaving.set(id, call.clock.monotonicMs());
      const links = port?.nics.map(({ network }) => this.#portName(id, network)) ?? [];
      silenceNamespace(path, links, this.#route);
      removeNamespace(path);
    } else {
      removeNamespace(path);
      if (!this.#isLeaving(id, call)) {
        const alias = instanceAlias + id;
        const names = new Set(port?.nics.map(({ network }) => this.#portName(id, network)));
        for (const link of this.#route.links()) {
          if (link.alias === alias || names.has(link.name)) await this.#removeLink(link.name, call);
        }
      }
    }
    this.#ports.remove(id);
    // A namespace may linger with its link, which stays guarded until the table changes for another reason.
    if (port?.kind === "tap") this.#applyTable();
    await this.#dropIdleResolvers(call);
  }

  async publish(routing: Routing, call: Call): Promise<{ readonly refused: readonly RefusedPort[] }> {
    call.signal.throwIfAborted();
    const named = new Set([...this.#networks.values()].map(({ id }) => id).concat(this.#resolvers.named()));
    for (const network of named) {
      const names = routing.names.filter((name) => name.network === network);
      this.#resolvers.setNames(network, names);
    }
    const before = this.#acceptedPorts();
    const { accepted, refused } = this.#publication.settle(routing.published, before, this.#networks.values());
    this.#published.put("published", accepted);
    this.#applyTable();
    forgetStaleUdp(before, accepted, () => this.#route.addresses().map(({ address }) => address));
    return { refused };
  }

  async list(call: Call): Promise<NetworkFacts> {
    const links = this.#route.links();
    const ours = links.filter(({ name }) => name.startsWith(`${this.#home.prefix}-`));
    const byName = new Map(ours.map((link) => [link.name, link]));
    return {
      networks: this.#networkFacts(byName),
      ports: this.#portFacts(byName, call),
      routingIntact: this.#table.isIntact(),
      reachable: this.#reachable(new Set(ours.map(({ index }) => index))),
    };
  }

  /** Ends what this object holds on the host for itself: sockets and reserved ports. Networks and instances stay. */
  close(): void {
    this.#publication.release();
    this.#route[Symbol.dispose]();
  }

  /**
   * Writes down what is wanted before anything is done, and of a change that it is not done: whoever finds it so after a
   * crash makes it again.
   */
  #begin(network: NetworkSpec): NetworkRecord | undefined {
    const before = JSON.stringify(this.#networks.get(network.id));
    if (before !== JSON.stringify(network)) this.#networks.put(network.id, { ...network, unfinished: true });
    for (const resolver of this.#shared.knowing(network.id)) {
      this.#shared.setInternal(resolver, this.#areInternal(resolver.networks));
    }
    return this.#networks.get(network.id);
  }

  /**
   * Instances in namespaces get another way out while they run. What a machine was told is the guest's own: where the way
   * is closed its packets are dropped, and where one opened it takes that when it is made again.
   */
  #routeInstances(id: NetworkId): void {
    for (const port of this.#ports.values()) {
      const path = this.#namespacePath(port.id);
      if (port.kind !== "netns" || !port.nics.some(({ network }) => network === id) || !isNamespace(path)) continue;
      routeNamespace(path, port.nics.length, this.#wayOut(port));
    }
  }

  /** By the first network that is not internal, where the instance has an address of it. */
  #wayOut({ nics }: PortSpec): WayOut | undefined {
    for (const [position, { network: id, address }] of nics.entries()) {
      const network = this.#networks.get(id);
      if (network === undefined || network.internal || !subnetHolds(network.subnet, address)) continue;
      return { position, gateway: gatewayOf(network.subnet) };
    }
    return undefined;
  }

  /** Whether none of them leads out. */
  #areInternal(ids: readonly NetworkId[]): boolean {
    return ids.every((id) => this.#networks.get(id)?.internal !== false);
  }

  #convergeBridge(network: NetworkSpec, gateway: string): string {
    const name = this.#bridgeName(network.id);
    const mtu = this.#uplinkMtu();
    const link = this.#route.link(name);
    if (link === undefined) {
      const mac = macOf(network.id, gateway);
      this.#route.do(...createBridgeRequests({ name, mac, mtu, alias: networkAlias + network.id }));
      // Otherwise an instance could talk the host into IPv6 routes by router advertisements.
      writeSysctl(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, "1");
    } else if (!link.up || link.mtu !== mtu) {
      this.#route.do(setLinkRequest(name, { up: true, mtu }));
    }
    const { index } = this.#route.link(name) as Link;
    const wanted = new Set([gateway, ...this.#shared.at(network.id).map(({ address }) => address)]);
    const present = this.#route.addresses().filter((address) => address.index === index);
    const { prefixLength } = parseSubnet(network.subnet);
    this.#route.do(
      ...present
        .filter(({ address }) => !wanted.has(address))
        .map((wrong) => removeAddressRequest(index, wrong.address, wrong.prefixLength)),
      ...[...wanted].map((address) => addAddressRequest(index, address, prefixLength)),
    );
    return name;
  }

  /** Links larger than the way out would make every connection find that out anew. */
  #uplinkMtu(): number {
    const [route] = this.#route
      .routes()
      .filter(({ prefixLength }) => prefixLength === 0)
      .sort((left, right) => left.metric - right.metric);
    const uplink = this.#route.links().find(({ index }) => index === route?.index);
    return uplink?.mtu ?? defaultMtu;
  }

  /** Without a network there is nothing to rule, and no table, unless forwarding has to stay on. */
  #applyTable(): void {
    if (this.#networks.size === 0) restoreForwarding(this.#route, this.#home.prefix, this.#forwarding);
    if (this.#networks.size > 0 || guardedUplinks(this.#forwarding).length > 0) {
      this.#table.apply(this.#ruleset());
    } else {
      this.#table.remove();
    }
  }

  #ruleset(): Ruleset {
    return {
      networks: [...this.#networks.values()].map((network) => ({
        bridge: this.#bridgeName(network.id),
        subnet: network.subnet,
        addresses: [gatewayOf(network.subnet), ...this.#shared.at(network.id).map(({ address }) => address)],
        internal: network.internal,
      })),
      resolvers: this.#shared.withClients(),
      ports: this.#acceptedPorts(),
      uplinks: guardedUplinks(this.#forwarding),
      links: [...this.#ports.values()].flatMap((port) => this.#guardedLinks(port)),
    };
  }

  #guardedLinks({ id, nics }: PortSpec): GuardedLink[] {
    return nics.map(({ network, address }) => ({
      link: this.#portName(id, network),
      mac: macOf(network, address),
      address,
    }));
  }

  #acceptedPorts(): readonly PublishedPort[] {
    return this.#published.get("published") ?? [];
  }

  #network(id: NetworkId, instance: InstanceId): NetworkSpec {
    const network = this.#networks.get(id);
    if (network === undefined || this.#route.link(this.#bridgeName(id)) === undefined) {
      throw new Fault("precondition", `attach ${instance}: network ${id} is not there`);
    }
    return network;
  }

  #wire(id: InstanceId, address: string, network: NetworkSpec): Wire {
    return {
      linkName: this.#portName(id, network.id),
      bridge: this.#route.link(this.#bridgeName(network.id)) as Link,
      mac: macOf(network.id, address),
      address,
      prefixLength: parseSubnet(network.subnet).prefixLength,
      alias: instanceAlias + id,
    };
  }

  /** Links of networks that the instance is no longer in. */
  async #dropUnwanted(port: PortSpec, before: PortSpec | undefined, call: Call): Promise<void> {
    const wanted = new Set(port.nics.map(({ network }) => network));
    for (const { network } of before?.nics ?? []) {
      if (!wanted.has(network)) await this.#removeLink(this.#portName(port.id, network), call);
    }
  }

  /** The one resolver for an instance in these networks, of which the one at `first` is asked by its way out. */
  async #resolverFor(networks: readonly NetworkSpec[], first: number, call: Call): Promise<readonly string[]> {
    const main = networks[first];
    if (main === undefined) return [];
    if (networks.length === 1) return [gatewayOf(main.subnet)];
    const ids = networks.map(({ id }) => id);
    let resolver = this.#shared.find(ids);
    if (resolver === undefined) {
      resolver = this.#shared.add(main, ids, this.#areInternal(ids));
      this.#convergeBridge(main, gatewayOf(main.subnet));
    }
    await this.#resolvers.ensure(resolver, call);
    return [resolver.address];
  }

  /** Ends resolvers for sets of networks that no instance is in any more, and gives their addresses back. */
  async #dropIdleResolvers(call: Call): Promise<void> {
    for (const resolver of this.#shared.all()) {
      if (this.#shared.isAsked(resolver)) continue;
      await this.#resolvers.stop(resolver.address, call);
      // Who came meanwhile waits to start it again.
      if (this.#shared.isAsked(resolver) || !this.#shared.remove(resolver)) continue;
      const main = this.#networks.get(resolver.networks[0] as NetworkId);
      const bridge = main === undefined ? undefined : this.#route.link(this.#bridgeName(main.id));
      if (main !== undefined && bridge !== undefined) {
        const { prefixLength } = parseSubnet(main.subnet);
        this.#route.do(removeAddressRequest(bridge.index, resolver.address, prefixLength));
      }
      this.#applyTable();
    }
  }

  /** All resolvers that know the network: its own, and those for several networks, which are made again when needed. */
  async #stopResolvers(id: NetworkId, call: Call): Promise<void> {
    const network = this.#networks.get(id);
    if (network !== undefined) await this.#resolvers.stop(gatewayOf(network.subnet), call);
    for (const resolver of this.#shared.knowing(id)) {
      await this.#resolvers.stop(resolver.address, call);
      this.#shared.remove(resolver);
    }
  }

  /**
   * By a process of its own: the kernel makes whoever removes a link wait until no processor can still see it, some 30 ms,
   * in which a synchronous call would stop everything else here.
   */
  async #removeLink(name: string, call: Call): Promise<void> {
    if (this.#route.link(name) === undefined) return;
    try {
      await run(["ip", "link", "delete", "dev", name], { attempted: `remove link ${name}` }, call);
    } catch (error) {
      if (this.#route.link(name) !== undefined) throw error;
    }
  }

  #networkFacts(links: ReadonlyMap<string, Link>): NetworkFacts["networks"] {
    const addresses = this.#route.addresses();
    const forwarding = isForwarding();
    const facts = [...this.#networks.values()].map((network) => {
      const bridge = links.get(this.#bridgeName(network.id));
      const asked = this.#shared.at(network.id).filter((resolver) => this.#shared.isAsked(resolver));
      const own = [gatewayOf(network.subnet), ...asked.map(({ address }) => address)];
      const has = (wanted: string): boolean =>
        addresses.some(({ index, address }) => index === bridge?.index && address === wanted);
      const intact =
        bridge?.up === true &&
        network.unfinished !== true &&
        (network.internal || forwarding) &&
        own.every((address) => has(address) && this.#resolvers.isRunning(address));
      return { id: network.id, subnet: network.subnet, internal: network.internal, intact };
    });
    // Bridges whose record is gone: removed halfway.
    for (const link of links.values()) {
      const id = link.alias?.startsWith(networkAlias) === true ? link.alias.slice(networkAlias.length) : undefined;
      if (id === undefined || this.#networks.get(id) !== undefined) continue;
      const address = addresses.find(({ index }) => index === link.index);
      const subnet = address === undefined ? "0.0.0.0/0" : networkOf(address);
      facts.push({ id: id as NetworkId, subnet, internal: false, intact: false });
    }
    return facts;
  }

  #portFacts(links: ReadonlyMap<string, Link>, call: Call): NetworkFacts["ports"] {
    const facts = new Map<InstanceId, boolean>();
    for (const path of listNamespaces(this.#namespaceDirectory)) {
      facts.set(path.slice(this.#namespaceDirectory.length + 1) as InstanceId, false);
    }
    for (const { alias } of links.values()) {
      if (alias?.startsWith(instanceAlias) === true) facts.set(alias.slice(instanceAlias.length) as InstanceId, false);
    }
    for (const port of this.#ports.values()) facts.set(port.id, this.#isPortIntact(port, links));
    for (const id of facts.keys()) {
      if (this.#ports.get(id) === undefined && this.#isLeaving(id, call)) facts.delete(id);
    }
    return [...facts].map(([id, intact]) => ({ id, intact }));
  }

  #isPortIntact(port: PortSpec, links: ReadonlyMap<string, Link>): boolean {
    if (port.kind === "netns" && !isNamespace(this.#namespacePath(port.id))) return false;
    return port.nics.every(({ network }) => {
      const link = links.get(this.#portName(port.id, network));
      const bridge = links.get(this.#bridgeName(network));
      return link?.up === true && bridge !== undefined && link.master === bridge.index;
    });
  }

  #isLeaving(id: InstanceId, call: Call): boolean {
    const sinceMs = this.#leaving.get(id);
    if (sinceMs === undefined) return false;
    if (call.clock.monotonicMs() - sinceMs < leavingMs) return true;
    this.#leaving.delete(id);
    return false;
  }

  /** What the host reaches by links that are not ours. */
  #reachable(ours: ReadonlySet<number>): readonly string[] {
    const routes = this.#route
      .routes()
      .filter(({ prefixLength, index }) => prefixLength > 0 && (index === undefined || !ours.has(index)))
      .map(({ destination, prefixLength }) => `${destination}/${prefixLength}`);
    const addresses = this.#route.addresses().filter(({ index }) => !ours.has(index));
    return [...new Set([...routes, ...addresses.map(({ address }) => `${address}/32`)])];
  }

  #bridgeName(id: NetworkId): string {
    return linkName(this.#home, `network ${id}`);
  }

  #portName(id: InstanceId, network: NetworkId): string {
    return linkName(this.#home, `port ${id} ${network}`);
  }

  #namespacePath(id: InstanceId): string {
    return join(this.#namespaceDirectory, id);
  }
}

function networkOf(address: { readonly address: string; readonly prefixLength: number }): string {
  const size = 2 ** (32 - address.prefixLength);
  const value = address.address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  return formatSubnet({ base: Math.floor(value / size) * size, prefixLength: address.prefixLength });
}
