/**
 * The second table of a home, in the bridge family: what may come out of the links of instances. Pure text, as `ruleset.ts`.
 *
 * Whoever is root in a machine can change its address, and in a container send raw packets (NET_RAW is among the usual
 * capabilities); both could take over a neighbour's address, or the gateway's, by saying that they have it. Here each link
 * sends from its own hardware and IP address only, in what ARP says too, and nothing but IPv4 and ARP, as the networks
 * have nothing else. What the host itself sends is not touched, nor what passes bridges of others.
 *
 * A packet of an instance costs two look-ups, and one on another bridge costs one.
 */
export interface GuardedLink {
  /** Our end: the veth's, or the tap. */
  readonly link: string;
  readonly mac: string;
  readonly address: string;
}

export function portGuard(table: string): string {
  return `table bridge ${table} {
  set guarded { type ifname; }
  set own { type ifname . ether_addr . ipv4_addr; }

  chain guard {
    type filter hook prerouting priority -300; policy accept;
    iifname != @guarded accept
    ether type ip iifname . ether saddr . ip saddr @own accept
    ether type arp iifname . ether saddr . arp saddr ip @own iifname . arp saddr ether . arp saddr ip @own accept
    ether type arp arp operation request arp saddr ip 0.0.0.0 iifname . ether saddr . arp daddr ip @own iifname . arp saddr ether . arp daddr ip @own accept comment "whether somebody has its own address already"
    drop
  }
}`;
}

/** The elements of its sets for these links, by set. */
export function portElements(links: readonly GuardedLink[]): readonly (readonly [set: string, element: string])[] {
  return links.flatMap(({ link, mac, address }) => [
    ["guarded", `"${link}"`] as const,
    ["own", `"${link}" . ${mac} . ${address}`] as const,
  ]);
}
