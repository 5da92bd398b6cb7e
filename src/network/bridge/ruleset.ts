import { type GuardedLink, portElements, portGuard } from "./port-guard.ts";

/**
 * The nftables tables of a home, as text: pure. One in the `inet` family decides where packets go, and beside it one in
 * the `bridge` family what instances may send at all (`port-guard.ts`); both have the same name, and change together.
 *
 * A table is a fixed skeleton of chains that look things up in sets and maps, and the content of those: one element
 * here and there for a network, one chain and one map element for a published port. A change is the difference of two
 * contents, a few commands in one transaction, whose cost does not grow with what stays (0.3 ms, where writing the table
 * anew takes 21 ms with 200 ports). Connections that exist are the business of conntrack, which no change here touches.
 *
 * What the chains promise:
 *
 * - Instances of one network reach each other; instances of different networks, also of different homes, do not. Each
 *   table guards its own bridges: only answers and what a published port leads to gets in.
 * - An `internal` network has no way in or out but its resolver and what the host itself begins, such as health checks.
 * - Names of a network are told to those who are in it: its resolver answers on its bridge only, and one for several
 *   networks only those who are in all of them.
 * - Instances of other networks reach the host's own services, as users of Docker expect: a service that must not be
 *   reached listens on loopback, which instances never reach.
 * - A published port answers on the host itself, to other hosts, and to instances by the host's address. The client's
 *   address is kept, but for two cases in which the answer would take another way: a client on loopback, and a client in
 *   the target's own network, appear as the gateway.
 * - An instance sends from its own hardware and IP address only.
 * - A machine that was no router forwards no IPv4 between the links it had; see `forwarding.ts`.
 *
 * The rules of others are untouched, and cannot be overruled either: what another table drops stays dropped.
 */

export interface Ruleset {
  readonly networks: readonly RulesetNetwork[];
  readonly ports: readonly RulesetPort[];
  /** Resolvers for several networks, each with the addresses, in the network that it listens in, of those who may ask it. */
  readonly resolvers: readonly { readonly address: string; readonly clients: readonly string[] }[];
  /** Links between which nothing may be forwarded: those the machine had when forwarding was enabled for our sake. */
  readonly uplinks: readonly string[];
  /** Links of instances, which may send from their own addresses only. */
  readonly links: readonly GuardedLink[];
}

export interface RulesetNetwork {
  readonly bridge: string;
  readonly subnet: string;
  /** The bridge's own addresses: the gateway, and resolvers for instances in several networks. */
  readonly addresses: readonly string[];
  readonly internal: boolean;
}

export interface RulesetPort {
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly protocol: "tcp" | "udp";
  readonly targets: readonly { readonly address: string; readonly port: number }[];
}

/** Of the two tables. */
export const families = ["inet", "bridge"] as const;

const everyAddress = "0.0.0.0";

/** A table whose chains find nothing in their sets. */
export const nothing: Ruleset = { networks: [], resolvers: [], ports: [], uplinks: [], links: [] };

/** Commands that make the tables from nothing, in place of whatever has their name. */
export function wholeTable(table: string, ruleset: Ruleset): string {
  return [
    noTable(table),
    skeleton(table),
    portGuard(table),
    ...difference(table, content(nothing), content(ruleset)),
  ].join("\n");
}

/** Commands that turn the tables from one state into another; empty when they are equal. */
export function tableChanges(table: string, before: Ruleset, after: Ruleset): string {
  return difference(table, content(before), content(after)).join("\n");
}

/** Commands that remove the tables; success also when they are not there. */
export function noTable(table: string): string {
  return families.flatMap((family) => [`table ${family} ${table} {}`, `delete table ${family} ${table}`]).join("\n");
}

function skeleton(table: string): string {
  return `table inet ${table} {
  set bridges { type ifname; }
  set internals { type ifname; }
  set uplinks { type ifname; }
  set same_network { type ifname . ifname; }
  set gateways { type ipv4_addr; }
  set own_gateways { type ifname . ipv4_addr; }
  set shared_resolvers { type ipv4_addr; }
  set may_ask { type ipv4_addr . ipv4_addr; }
  set leaving { type ipv4_addr; flags interval; }
  map hairpin { type ifname : verdict; }
  map published { type inet_proto . inet_service : verdict; }
  map published_at { type ipv4_addr . inet_proto . inet_service : verdict; }

  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop comment "loopback addresses never come in by a link, not even where route_localnet would let them"
    iifname @bridges meta nfproto ipv4 fib saddr . iif oif missing drop comment "an instance speaks with an address of its network only"
  }

  chain publish {
    ip daddr . meta l4proto . th dport vmap @published_at
    fib daddr type local meta l4proto . th dport vmap @published
  }

  chain incoming {
    type nat hook prerouting priority dstnat; policy accept;
    meta nfproto ipv4 jump publish
  }

  chain from_host {
    type nat hook output priority -100; policy accept;
    meta nfproto ipv4 jump publish
  }

  chain outgoing {
    type nat hook postrouting priority srcnat; policy accept;
    oifname vmap @hairpin
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ip saddr @leaving oifname != @bridges masquerade
  }

  chain forward {
    type filter hook forward priority filter; policy accept;
    meta nfproto ipv4 iifname @uplinks oifname @uplinks drop comment "this machine is no router; forwarding is on for instances only"
    iifname != @bridges oifname != @bridges accept
    iifname . oifname @same_network accept
    iifname @internals drop comment "also of a connection from before the network became internal"
    oifname @internals drop
    ct state established,related accept
    ct status dnat accept
    oifname @bridges drop
  }

  chain to_host {
    type filter hook input priority filter; policy accept;
    iifname != "lo" ip daddr @gateways iifname . ip daddr != @own_gateways drop comment "a network's gateway and resolver answer in that network only"
    iifname != "lo" ip daddr @shared_resolvers ip saddr . ip daddr != @may_ask drop comment "a resolver for several networks answers those who are in all of them"
    iifname @internals jump from_internal
  }

  chain from_internal {
    ct direction reply ct state established,related accept
    iifname . ip daddr @own_gateways meta l4proto { tcp, udp } th dport 53 accept
    iifname . ip daddr @own_gateways icmp type echo-request accept
    drop
  }
}`;
}

/** What differs between two states of the tables: elements by family and set, rules by chain of the `inet` one. */
interface Content {
  readonly elements: ReadonlyMap<string, readonly string[]>;
  readonly chains: ReadonlyMap<string, readonly string[]>;
}

function content(ruleset: Ruleset): Content {
  const elements = new Map<string, string[]>();
  const chains = new Map<string, string[]>();
  const addTo = (place: string, element: string): void => {
    const list = elements.get(place);
    if (list === undefined) elements.set(place, [element]);
    else list.push(element);
  };
  const add = (set: string, element: string): void => addTo(`inet ${set}`, element);
  for (const [set, element] of portElements(ruleset.links)) addTo(`bridge ${set}`, element);
  for (const uplink of ruleset.uplinks) add("uplinks", `"${uplink}"`);
  for (const { bridge, subnet, addresses, internal } of ruleset.networks) {
    add("bridges", `"${bridge}"`);
    add("same_network", `"${bridge}" . "${bridge}"`);
    for (const address of addresses) {
      add("gateways", address);
      add("own_gateways", `"${bridge}" . ${address}`);
    }
    if (internal) {
      add("internals", `"${bridge}"`);
    } else {
      const chain = `hairpin_${identifier(bridge)}`;
      chains.set(chain, [`ct status dnat ip saddr ${subnet} masquerade`]);
      add("hairpin", `"${bridge}" : jump ${chain}`);
      add("leaving", subnet);
    }
  }
  for (const { address, clients } of ruleset.resolvers) {
    add("shared_resolvers", address);
    for (const client of clients) add("may_ask", `${client} . ${address}`);
  }
  for (const { hostAddress, hostPort, protocol, targets } of ruleset.ports) {
    const everywhere = hostAddress === everyAddress;
    const chain = `${protocol}_${hostPort}${everywhere ? "" : `_at_${identifier(hostAddress)}`}`;
    const key = `${protocol} . ${hostPort} : goto ${chain}`;
    chains.set(chain, [`meta l4proto ${protocol} dnat ip to ${destination(targets)}`]);
    if (everywhere) add("published", key);
    else add("published_at", `${hostAddress} . ${key}`);
  }
  return { elements, chains };
}

/** One target is an address; several take turns, connection by connection. */
function destination(targets: RulesetPort["targets"]): string {
  const [only] = targets;
  if (only !== undefined && targets.length === 1) return `${only.address}:${only.port}`;
  const turns = targets.map(({ address, port }, turn) => `${turn} : ${address} . ${port}`);
  return `numgen inc mod ${targets.length} map { ${turns.join(", ")} }`;
}

/** In the order that keeps every reference valid: chains before the elements that lead to them, and the other way back. */
function difference(table: string, before: Content, after: Content): string[] {
  const commands: string[] = [];
  for (const [chain, rules] of after.chains) {
    const old = before.chains.get(chain);
    if (old?.join("\n") === rules.join("\n")) continue;
    commands.push(old === undefined ? `add chain inet ${table} ${chain}` : `flush chain inet ${table} ${chain}`);
    for (const rule of rules) commands.push(`add rule inet ${table} ${chain} ${rule}`);
  }
  for (const place of new Set([...before.elements.keys(), ...after.elements.keys()])) {
    const [family, set] = place.split(" ");
    const old = new Set(before.elements.get(place));
    const wanted = new Set(after.elements.get(place));
    const gone = [...old].filter((element) => !wanted.has(element));
    const fresh = [...wanted].filter((element) => !old.has(element));
    if (gone.length > 0) commands.push(`delete element ${family} ${table} ${set} { ${gone.join(", ")} }`);
    if (fresh.length > 0) commands.push(`add element ${family} ${table} ${set} { ${fresh.join(", ")} }`);
  }
  for (const chain of before.chains.keys()) {
    if (after.chains.has(chain)) continue;
    commands.push(`flush chain inet ${table} ${chain}`, `delete chain inet ${table} ${chain}`);
  }
  return commands;
}

/** nftables' names of chains take letters, digits and underscores. */
function identifier(text: string): string {
  return text.replaceAll(/[^0-9A-Za-z]/g, "_");
}
