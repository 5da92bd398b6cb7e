import { Fault, isFault } from "../../base/fault.ts";
import { forgetUdpAt, forgetUdpTo } from "../../host/conntrack.ts";
import { findHolder, type ReservedPort, reservePort } from "../../host/port.ts";
import { subnetHolds } from "../address.ts";
import type { NetworkSpec, PublishedPort, RefusedPort } from "../contract.ts";
import type { RulesetPort } from "./ruleset.ts";

const everyAddress = "0.0.0.0";

/**
 * Which of the wanted ports may be published. Every one that is, is reserved on the host as long as it is, so that a
 * program which wants to listen there learns it at once; and one that a program listens on is refused.
 */
export class Publication {
  readonly #reserved = new Map<string, ReservedPort>();
  /** Who held a port when it was refused; finding that out takes long, and the question comes again with every pass. */
  readonly #refused = new Map<string, Fault>();

  /**
   * Sorts the wanted ports into those that can be published and those that cannot, and reserves the former. Whoever has
   * a port (`before`) keeps it, whatever the order in which they ask.
   */
  settle(
    wanted: readonly PublishedPort[],
    before: readonly PublishedPort[],
    networks: Iterable<NetworkSpec>,
  ): { readonly accepted: readonly PublishedPort[]; readonly refused: readonly RefusedPort[] } {
    const internal = [...networks].filter((network) => network.internal);
    const keys = new Set(wanted.map(keyOf));
    for (const [key, reserved] of this.#reserved) {
      if (keys.has(key)) continue;
      reserved.release();
      this.#reserved.delete(key);
    }
    for (const key of this.#refused.keys()) {
      if (!keys.has(key)) this.#refused.delete(key);
    }
    const accepted: PublishedPort[] = [];
    const refused: RefusedPort[] = [];
    const holders = new Map(before.map((port) => [keyOf(port), port.holder]));
    const isNew = (port: PublishedPort): number => (holders.get(keyOf(port)) === port.holder ? 0 : 1);
    for (const port of [...wanted].sort((left, right) => isNew(left) - isNew(right))) {
      const fault = this.#refuse(port, accepted, internal);
      if (fault === undefined) accepted.push(port);
      else refused.push({ port, holder: port.holder, fault });
    }
    return { accepted, refused };
  }

  /** Gives all ports back. */
  release(): void {
    for (const reserved of this.#reserved.values()) reserved.release();
    this.#reserved.clear();
    this.#refused.clear();
  }

  #refuse(
    port: PublishedPort,
    accepted: readonly PublishedPort[],
    internal: readonly NetworkSpec[],
  ): Fault | undefined {
    for (const { address } of port.targets) {
      const network = internal.find(({ subnet }) => subnetHolds(subnet, address));
      if (network === undefined) continue;
      return new Fault("invalid", `${describe(port)} of ${port.holder}: network ${network.id} is internal`, {
        hint: "give the instance a network that is not internal as well",
      });
    }
    const rival = accepted.find((other) => overlap(port, other));
    if (rival !== undefined) return conflict(port, rival.holder, "remove one of the two, or give it another port");
    const key = keyOf(port);
    if (this.#reserved.has(key)) return undefined;
    try {
      this.#reserved.set(key, reservePort(port.protocol, port.hostAddress, port.hostPort));
      this.#refused.delete(key);
      return undefined;
    } catch (error) {
      if (!isFault(error)) throw error;
      const fault = this.#refused.get(key) ?? explain(port, error);
      this.#refused.set(key, fault);
      return fault;
    }
  }
}

/**
 * After the table changed: forgets UDP connections that would keep going where nobody receives them, to a target that is
 * gone, or to the host itself from before the port was published. TCP is left alone: it ends by itself.
 */
export function forgetStaleUdp(
  before: readonly RulesetPort[],
  after: readonly RulesetPort[],
  hostAddresses: () => readonly string[],
): void {
  const remaining = udpTargets(after);
  for (const target of udpTargets(before)) {
    if (remaining.has(target)) continue;
    const [address = "", port = ""] = target.split(":");
    forgetUdpTo(address, Number(port));
  }
  const published = new Set(udpPorts(before).map(keyOf));
  for (const port of udpPorts(after)) {
    if (published.has(keyOf(port))) continue;
    const addresses = port.hostAddress === everyAddress ? hostAddresses() : [port.hostAddress];
    for (const address of addresses) forgetUdpAt(address, port.hostPort);
  }
}

function udpPorts(ports: readonly RulesetPort[]): RulesetPort[] {
  return ports.filter(({ protocol }) => protocol === "udp");
}

function udpTargets(ports: readonly RulesetPort[]): Set<string> {
  return new Set(udpPorts(ports).flatMap(({ targets }) => targets.map(({ address, port }) => `${address}:${port}`)));
}

function explain(port: PublishedPort, fault: Fault): Fault {
  if (fault.reason === "invalid") {
    return new Fault(
      "invalid",
      `${describe(port)} of ${port.holder}: ${port.hostAddress} is not an address of this host`,
      {
        hint: "publish on an address that this host has, or leave the address out for all of them",
        cause: fault,
      },
    );
  }
  if (fault.reason !== "conflict") return fault;
  const holder = findHolder(port.protocol, port.hostAddress, port.hostPort);
  if (holder === undefined) {
    return conflict(port, "another program, or another Croft", "publish another port", fault);
  }
  const { program, pid } = holder;
  return conflict(port, `${program} (pid ${pid})`, `stop ${program}, or publish another port`, fault);
}

function conflict(port: PublishedPort, holder: string, hint: string, cause?: Fault): Fault {
  return new Fault("conflict", `${describe(port)} cannot be published for ${port.holder}: ${holder} holds it`, {
    hint,
    detail: { port: String(port.hostPort), holder },
    ...(cause === undefined ? {} : { cause }),
  });
}

function overlap(left: PublishedPort, right: PublishedPort): boolean {
  const sameAddress =
    left.hostAddress === right.hostAddress || [left.hostAddress, right.hostAddress].includes(everyAddress);
  return sameAddress && left.hostPort === right.hostPort && left.protocol === right.protocol;
}

function describe(port: PublishedPort): string {
  const address = port.hostAddress === everyAddress ? "" : `${port.hostAddress}:`;
  return `${port.protocol} port ${address}${port.hostPort}`;
}

function keyOf(port: RulesetPort): string {
  return `${port.protocol} ${port.hostAddress}:${port.hostPort}`;
}
