import type { Call } from "../base/call.ts";
import type { Driver } from "../base/driver.ts";
import type { Fault } from "../base/fault.ts";
import type { InstanceId, NetworkId } from "../base/id.ts";

/**
 * Connects instances. Addresses and names are decided above (`address.ts`, `reconcile/`): a driver only makes them so.
 * Every method is idempotent and level-triggered, and `list` tells all the driver owns, also after a crash.
 */
export interface NetworkDriver extends Driver {
  /** Makes the network as described, or changes it in place to be so. */
  converge(network: NetworkSpec, call: Call): Promise<void>;
  /** Throws `precondition` while an instance is attached to it. */
  remove(id: NetworkId, call: Call): Promise<void>;

  /**
   * Gives an instance its interfaces, in one network namespace (`netns`) or as taps. All nics of the instance at once.
   * Throws `precondition` when a network of it was not converged.
   */
  attach(port: PortSpec, call: Call): Promise<Attachment>;
  /** Takes them away, with the namespace. */
  detach(id: InstanceId, call: Call): Promise<void>;

  /**
   * Makes names resolve and published ports reach their targets: the whole desired state of this host at once, applied
   * atomically. Called whenever the set of running, ready instances changes; an equal state again costs nothing.
   * Connections that exist are left alone, whatever changes. A port that somebody else on the host holds is refused and
   * named in the answer; all the others are published, and the next call tries it again.
   */
  publish(routing: Routing, call: Call): Promise<{ readonly refused: readonly RefusedPort[] }>;

  list(call: Call): Promise<NetworkFacts>;
}

export interface NetworkSpec {
  readonly id: NetworkId;
  /** IPv4 CIDR, e.g. `10.20.0.0/24`. The gateway is its first usable address. */
  readonly subnet: string;
  /** No way out: no NAT, no route beyond the bridge, no published ports. */
  readonly internal: boolean;
}

export interface PortSpec {
  readonly id: InstanceId;
  readonly kind: "netns" | "tap";
  readonly hostname: string;
  /** For `tap`: the user who may open the taps, as a number. Default: root. */
  readonly tapOwnerUid?: number;
  /** The first one that is not internal carries the default route. */
  readonly nics: readonly NicSpec[];
}

export interface NicSpec {
  readonly network: NetworkId;
  /** IPv4 address without prefix length. */
  readonly address: string;
  /** Names this instance answers to in that network, e.g. `web-1`, `web`, `web.shop`; several instances may share one. */
  readonly names: readonly string[];
}

export type Attachment =
  | {
      readonly kind: "netns";
      /** A file that names the namespace, such as `/run/croft/netns/…`. */
      readonly path: string;
      /** Address of the resolver to write in `/etc/resolv.conf`. */
      readonly resolvers: readonly string[];
    }
  | {
      readonly kind: "tap";
      readonly taps: readonly {
        readonly name: string;
        readonly mac: string;
        readonly address: string;
        /** Of its network: what the guest reaches without a gateway. */
        readonly prefixLength: number;
      }[];
      readonly gateway?: string;
      readonly resolvers: readonly string[];
    };

export interface Routing {
  /** Names of running instances. Replicas share a name and are several addresses. */
  readonly names: readonly { readonly network: NetworkId; readonly name: string; readonly address: string }[];
  readonly published: readonly PublishedPort[];
}

export interface PublishedPort {
  /** `0.0.0.0` for all addresses of the host. */
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly protocol: "tcp" | "udp";
  /** Several targets share the connections (replicas). Never empty. */
  readonly targets: readonly { readonly address: string; readonly port: number }[];
  /** Who holds it, for the error another claimant gets: `shop/web`. */
  readonly holder: string;
}

export interface RefusedPort {
  readonly port: PublishedPort;
  readonly holder: string;
  /**
   * `conflict` when someone holds the port, with `detail.port` and `detail.holder`: `shop/web`, or `nginx (pid 812)` for
   * a process of the host. `invalid` when the address is none of this host's, or a target's network is internal.
   */
  readonly fault: Fault;
}

export interface NetworkFacts {
  readonly networks: readonly {
    readonly id: NetworkId;
    readonly subnet: string;
    readonly internal: boolean;
    readonly intact: boolean;
  }[];
  /** `intact: false`: something of it is missing (a link deleted by hand); attaching it again repairs it. */
  readonly ports: readonly { readonly id: InstanceId; readonly intact: boolean }[];
  /** The published state on the host is what was last asked for. */
  readonly routingIntact: boolean;
  /** Subnets that the host reaches without us; a network in one of them would cut it off. */
  readonly reachable: readonly string[];
}
