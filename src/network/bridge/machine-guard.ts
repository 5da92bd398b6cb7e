/**
 * The second table of a home, in the bridge family: what may come out of the taps of machines. Pure text, as `ruleset.ts`.
 *
 * A container cannot change its address; whoever is root in a machine can, and could take over a neighbour's, or its
 * gateway's, by saying that it has it. Here each tap sends from its own hardware and IP address only, in what ARP says
 * too, and nothing but IPv4 and ARP, as the networks have nothing else. What the host itself sends is not touched.
 *
 * The table exists where machines do, and is written anew when they change: they are few, and it is one transaction.
 */
export interface GuardedTap {
  readonly tap: string;
  readonly mac: string;
  readonly address: string;
}

export function guardOf(table: string, taps: readonly GuardedTap[]): string[] {
  const known = taps.toSorted((left, right) => (left.tap < right.tap ? -1 : 1));
  return known.length === 0 ? [] : [...noGuard(table), guard(table, known)];
}

/** Commands that turn the guard from one state into another; none when they are equal. */
export function guardChanges(table: string, before: readonly GuardedTap[], after: readonly GuardedTap[]): string[] {
  const [old, wanted] = [guardOf(table, before), guardOf(table, after)];
  if (old.join("\n") === wanted.join("\n")) return [];
  return wanted.length === 0 ? noGuard(table) : wanted;
}

/** Commands that remove it; success also when it is not there. */
export function noGuard(table: string): string[] {
  return [`table bridge ${table} {}`, `delete table bridge ${table}`];
}

function guard(table: string, taps: readonly GuardedTap[]): string {
  const elements = (show: (tap: GuardedTap) => string): string => `elements = { ${taps.map(show).join(", ")} }`;
  return `table bridge ${table} {
  set taps { type ifname; ${elements(({ tap }) => `"${tap}"`)}; }
  set own_macs { type ifname . ether_addr; ${elements(({ tap, mac }) => `"${tap}" . ${mac}`)}; }
  set own_addresses { type ifname . ipv4_addr; ${elements(({ tap, address }) => `"${tap}" . ${address}`)}; }

  chain guard {
    type filter hook prerouting priority -300; policy accept;
    iifname != @taps accept
    iifname . ether saddr != @own_macs drop
    ether type ip iifname . ip saddr @own_addresses accept
    ether type arp iifname . arp saddr ether @own_macs iifname . arp saddr ip @own_addresses accept
    drop
  }
}`;
}
