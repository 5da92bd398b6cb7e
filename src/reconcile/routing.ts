import type { Call } from "../base/call.ts";
import type { Fault } from "../base/fault.ts";
import { type InstanceId, type NetworkId, parseInstanceId } from "../base/id.ts";
import type { NetworkDriver, PublishedPort, Routing } from "../network/contract.ts";

/** What one ready instance adds to names and published ports. */
export interface Route {
  readonly id: InstanceId;
  /** `shop/web`: who holds its ports. */
  readonly holder: string;
  readonly names: readonly { readonly network: NetworkId; readonly name: string; readonly address: string }[];
  readonly ports: readonly {
    readonly hostAddress: string;
    readonly hostPort: number;
    readonly protocol: "tcp" | "udp";
    readonly address: string;
    readonly port: number;
  }[];
}

/** `shop/web`: who holds the ports of this replica and of its others. */
export function holderOf(id: InstanceId): string {
  const { stack = "", name = "" } = parseInstanceId(id) ?? {};
  return `${stack}/${name}`;
}

/**
 * Names and published ports of all ready instances, handed to the network driver as one state. Changes made within one
 * turn of the event loop, and all those made while the driver works, go to the host together.
 */
export class RoutingTable {
  readonly #driver: NetworkDriver;
  readonly #call: Call;
  readonly #routes = new Map<InstanceId, Route>();
  /** Why a holder's port is not published; empty when all are. */
  #refused: ReadonlyMap<string, Fault> = new Map();
  /** Who publishes a port, by `tcp 8080`: holder → how many of its routes. */
  readonly #held = new Map<string, Map<string, number>>();
  #dirty = false;
  #writing: Promise<void> | undefined;

  constructor(driver: NetworkDriver, call: Call) {
    this.#driver = driver;
    this.#call = call;
  }

  /** Names and ports of an instance, from now on. */
  set(route: Route): void {
    const known = this.#routes.get(route.id);
    if (known !== undefined && JSON.stringify(known) === JSON.stringify(route)) return;
    if (known !== undefined) this.#count(known, -1);
    this.#count(route, 1);
    this.#routes.set(route.id, route);
    this.#dirty = true;
  }

  /** Nothing leads to the instance any more: before it stops, and when it is gone. */
  drop(id: InstanceId): void {
    const route = this.#routes.get(id);
    if (route === undefined) return;
    this.#count(route, -1);
    this.#routes.delete(id);
    this.#dirty = true;
  }

  /** Whether other replicas publish what this one does, or did until now. */
  isRelieved(id: InstanceId): boolean {
    const holder = holderOf(id);
    for (const route of this.#routes.values()) {
      if (route.holder === holder && route.id !== id && route.ports.length > 0) return true;
    }
    return false;
  }

  /** Says that the host does not hold what was written: the next flush writes it again. */
  invalidate(): void {
    this.#dirty = true;
  }

  /** Who holds a host port, other than instances of `stack` itself; undefined when nobody does. */
  holderOf(
    port: { readonly hostAddress: string; readonly hostPort: number; readonly protocol: string },
    stack: string,
  ): string | undefined {
    for (const held of this.#held.get(`${port.protocol} ${port.hostPort}`)?.keys() ?? []) {
      const [holder = "", address] = held.split(" ");
      if (holder.startsWith(`${stack}/`)) continue;
      if (address === port.hostAddress || address === any || port.hostAddress === any) return holder;
    }
    return undefined;
  }

  refusal(holder: string): Fault | undefined {
    return this.#refused.get(holder);
  }

  /** Resolves when the host has everything set or dropped so far. A port that is refused does not stop the others. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    // A port that was refused may be free by now.
    if (!this.#dirty && this.#refused.size === 0) return;
    this.#dirty = false;
    this.#writing = this.#write().finally(() => {
      this.#writing = undefined;
    });
    await this.#writing;
  }

  async #write(): Promise<void> {
    try {
      const { refused } = await this.#driver.publish(this.#routing(), this.#call);
      // Of several refusals of one holder, the first is told.
      this.#refused = new Map(refused.toReversed().map(({ holder, fault }) => [holder, fault]));
    } catch (thrown) {
      this.#dirty = true;
      throw thrown;
    }
  }

  #count({ holder, ports }: Route, by: 1 | -1): void {
    for (const { protocol, hostPort, hostAddress } of ports) {
      const port = `${protocol} ${hostPort}`;
      const holders = this.#held.get(port) ?? new Map<string, number>();
      const key = `${holder} ${hostAddress}`;
      const count = (holders.get(key) ?? 0) + by;
      if (count > 0) holders.set(key, count);
      else holders.delete(key);
      if (holders.size > 0) this.#held.set(port, holders);
      else this.#held.delete(port);
    }
  }

  #routing(): Routing {
    const names: Routing["names"][number][] = [];
    const ports = new Map<string, PublishedPort & { targets: { address: string; port: number }[] }>();
    for (const route of this.#routes.values()) {
      names.push(...route.names);
      for (const { hostAddress, hostPort, protocol, address, port } of route.ports) {
        const key = `${route.holder} ${protocol} ${hostAddress}:${hostPort}`;
        const published = ports.get(key) ?? { hostAddress, hostPort, protocol, targets: [], holder: route.holder };
        published.targets.push({ address, port });
        ports.set(key, published);
      }
    }
    return { names, published: [...ports.values()] };
  }
}

const any = "0.0.0.0";
