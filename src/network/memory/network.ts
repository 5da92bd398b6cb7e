import type { Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import { type InstanceId, type NetworkId, shortHash } from "../../base/id.ts";
import { gatewayOf, parseSubnet, subnetHolds } from "../address.ts";
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

/**
 * What a machine would remember while daemons come and go: give the same one to a second driver to restart it. Tests look
 * into it, and damage it.
 */
export class MemoryHost {
  readonly networks = new Map<NetworkId, NetworkSpec>();
  readonly ports = new Map<InstanceId, PortSpec>();
  /** What is there but not whole: networks, instances, and `routing`. */
  readonly damaged = new Set<NetworkId | InstanceId | "routing">();
  /** Ports that programs of the host hold, by `tcp 8080`, and their names. */
  readonly occupied = new Map<string, string>();
  routing: Routing = { names: [], published: [] };
  reachable: readonly string[] = [];
}

/** Networks of a host that is only remembered. Keeps every promise of the contract that can be kept without packets. */
export class MemoryNetwork implements NetworkDriver {
  readonly name = "memory";
  readonly #host: MemoryHost;

  constructor(host: MemoryHost = new MemoryHost()) {
    this.#host = host;
  }

  async probe(_call: Call): Promise<Probe> {
    return { ok: true, detail: "in memory" };
  }

  async converge(network: NetworkSpec, _call: Call): Promise<void> {
    gatewayOf(network.subnet);
    this.#host.networks.set(network.id, network);
    this.#host.damaged.delete(network.id);
  }

  async remove(id: NetworkId, _call: Call): Promise<void> {
    for (const port of this.#host.ports.values()) {
      if (!port.nics.some(({ network }) => network === id)) continue;
      throw new Fault("precondition", `remove network ${id}: instance ${port.id} is attached to it`);
    }
    this.#host.networks.delete(id);
    this.#host.damaged.delete(id);
  }

  async attach(port: PortSpec, _call: Call): Promise<Attachment> {
    const networks = port.nics.map(({ network: id }) => {
      const network = this.#host.networks.get(id);
      if (network !== undefined && !this.#host.damaged.has(id)) return network;
      throw new Fault("precondition", `attach ${port.id}: network ${id} is not there`);
    });
    this.#host.ports.set(port.id, port);
    this.#host.damaged.delete(port.id);
    const out = networks.find(({ internal }) => !internal) ?? networks[0];
    const resolvers = out === undefined ? [] : [gatewayOf(out.subnet)];
    if (port.kind === "netns") return { kind: "netns", path: `/memory/netns/${port.id}`, resolvers };
    const taps = port.nics.map(({ network, address }, at) => {
      const { prefixLength } = parseSubnet(networks[at]?.subnet ?? "");
      const digits = shortHash(`${port.id} ${network}`, 10);
      return { name: `tap-${digits}`, mac: `02:${digits.match(/../g)?.join(":")}`, address, prefixLength };
    });
    return {
      kind: "tap",
      taps,
      resolvers,
      ...(out === undefined || out.internal ? {} : { gateway: gatewayOf(out.subnet) }),
    };
  }

  async detach(id: InstanceId, _call: Call): Promise<void> {
    this.#host.ports.delete(id);
    this.#host.damaged.delete(id);
  }

  async publish(routing: Routing, _call: Call): Promise<{ readonly refused: readonly RefusedPort[] }> {
    const before = this.#host.routing.published;
    const had = (port: PublishedPort): number => (before.some((other) => isSame(port, other)) ? 0 : 1);
    const accepted: PublishedPort[] = [];
    const refused: RefusedPort[] = [];
    for (const port of [...routing.published].sort((left, right) => had(left) - had(right))) {
      const fault = this.#refuse(port, accepted);
      if (fault === undefined) accepted.push(port);
      else refused.push({ port, holder: port.holder, fault });
    }
    this.#host.routing = { names: routing.names, published: accepted };
    this.#host.damaged.delete("routing");
    return { refused };
  }

  async list(_call: Call): Promise<NetworkFacts> {
    const { networks, ports, damaged, reachable } = this.#host;
    return {
      networks: [...networks.values()].map((network) => ({ ...network, intact: !damaged.has(network.id) })),
      ports: [...ports.values()].map(({ id, nics }) => ({
        id,
        intact: !damaged.has(id) && !nics.some(({ network }) => damaged.has(network)),
      })),
      routingIntact: !damaged.has("routing"),
      reachable,
    };
  }

  #refuse(port: PublishedPort, accepted: readonly PublishedPort[]): Fault | undefined {
    const shown = `${port.protocol} port ${port.hostPort}`;
    for (const network of this.#host.networks.values()) {
      if (!network.internal || !port.targets.some(({ address }) => subnetHolds(network.subnet, address))) continue;
      return new Fault("invalid", `${shown} of ${port.holder}: network ${network.id} is internal`);
    }
    const rival =
      accepted.find((other) => overlaps(port, other))?.holder ??
      this.#host.occupied.get(`${port.protocol} ${port.hostPort}`);
    if (rival === undefined) return undefined;
    return new Fault("conflict", `${shown} cannot be published for ${port.holder}: ${rival} holds it`, {
      detail: { port: String(port.hostPort), holder: rival },
    });
  }
}

function isSame(left: PublishedPort, right: PublishedPort): boolean {
  return left.holder === right.holder && left.hostAddress === right.hostAddress && overlaps(left, right);
}

function overlaps(left: PublishedPort, right: PublishedPort): boolean {
  const everyAddress = "0.0.0.0";
  const sameAddress =
    left.hostAddress === right.hostAddress || [left.hostAddress, right.hostAddress].includes(everyAddress);
  return sameAddress && left.hostPort === right.hostPort && left.protocol === right.protocol;
}
