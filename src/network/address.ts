import { isIPv4 } from "node:net";
import { Fault } from "../base/fault.ts";
import { shortHash } from "../base/id.ts";

/**
 * IPv4 subnets and addresses, and how they are chosen: pure functions of what is taken and of a seed, so that the same
 * network and the same slot get the same numbers again where they are free. A choice never depends on the order in
 * which things were started.
 */

export interface Subnet {
  /** The network address as a number. */
  readonly base: number;
  readonly prefixLength: number;
}

/** Smaller than /29 leaves no room beside gateway, network and broadcast address; larger than /8 is a mistake. */
const shortestPrefix = 8;
const longestPrefix = 29;
const usualSlicePrefixLength = 24;
const mostResolvers = 8;

/** `10.20.0.0/24`. Throws an `invalid` Fault when it is not the CIDR of a network that could hold instances. */
export function parseSubnet(cidr: string): Subnet {
  const subnet = parseCidr(cidr);
  if (subnet.prefixLength < shortestPrefix || subnet.prefixLength > longestPrefix) {
    throw new Fault("invalid", `subnet ${cidr} is too ${subnet.prefixLength < shortestPrefix ? "large" : "small"}`, {
      hint: `write a prefix length between /${shortestPrefix} and /${longestPrefix}`,
    });
  }
  const base = firstOf(subnet);
  if (base !== subnet.base) {
    throw new Fault("invalid", `${cidr} is an address within a subnet`, {
      hint: `the subnet is ${formatAddress(base)}/${subnet.prefixLength}`,
    });
  }
  return subnet;
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatAddress(subnet.base)}/${subnet.prefixLength}`;
}

export function parseAddress(address: string): number {
  if (!isIPv4(address)) throw new Fault("invalid", `"${address}" is not an IPv4 address`);
  const [a = 0, b = 0, c = 0, d = 0] = address.split(".").map(Number);
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

export function formatAddress(value: number): string {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff].join(".");
}

/** The first usable address of a network: its bridge's own. */
export function gatewayOf(cidr: string): string {
  return formatAddress(parseSubnet(cidr).base + 1);
}

export function subnetHolds(cidr: string, address: string): boolean {
  const subnet = parseSubnet(cidr);
  const value = parseAddress(address);
  return value >= subnet.base && value <= lastOf(subnet);
}

/** Any two CIDRs, also such as routes have (`0.0.0.0/0`, `192.0.2.7/32`). */
export function subnetsOverlap(left: string, right: string): boolean {
  const [one, other] = [parseCidr(left), parseCidr(right)];
  return firstOf(one) <= lastOf(other) && firstOf(other) <= lastOf(one);
}

/**
 * Addresses at the upper end that instances never get: resolvers for instances that are in several networks listen
 * there (see `bridge/resolver.ts`). None in a subnet of fewer than 16 addresses.
 */
export function resolverAddresses(cidr: string): readonly string[] {
  const subnet = parseSubnet(cidr);
  const count = resolverCount(subnet);
  return Array.from({ length: count }, (_, position) => formatAddress(lastOf(subnet) - 1 - position));
}

/**
 * A free slice of `pool` (a /24, unless said otherwise) for the network `seed`, beginning to look at a place that derives from `seed`.
 *
 * `taken` are the subnets of other networks and all that the host can reach without its default route; overlapping any
 * of them would cut something off. Throws `exhausted` when nothing is free.
 */
export function chooseSubnet(
  pool: string,
  seed: string,
  taken: readonly string[],
  slicePrefixLength = usualSlicePrefixLength,
): string {
  const whole = parseSubnet(pool);
  const prefixLength = Math.max(slicePrefixLength, whole.prefixLength);
  const count = 2 ** (prefixLength - whole.prefixLength);
  const sizeOfOne = 2 ** (32 - prefixLength);
  const start = startingPoint(seed, count);
  for (let step = 0; step < count; step += 1) {
    const base = whole.base + ((start + step) % count) * sizeOfOne;
    const candidate = formatSubnet({ base, prefixLength });
    if (!taken.some((other) => subnetsOverlap(candidate, other))) return candidate;
  }
  throw new Fault("exhausted", `choose a subnet for network ${seed}: no /${prefixLength} of ${pool} is free`, {
    hint: "remove a network, give this one a subnet, or configure a larger pool",
  });
}

/**
 * A free address of `cidr` for the instance slot `seed` (not its id, which changes with its specification): `preferred`
 * when that is possible, otherwise from a place that derives from `seed`. Never the network's, the gateway's, the
 * broadcast or a resolver's address. Throws `exhausted` when nothing is free.
 */
export function chooseAddress(
  cidr: string,
  options: { readonly seed: string; readonly preferred: string | undefined; readonly taken: ReadonlySet<string> },
): string {
  const { seed, preferred, taken } = options;
  const subnet = parseSubnet(cidr);
  const first = subnet.base + 2;
  const count = lastOf(subnet) - 1 - resolverCount(subnet) - first + 1;
  if (preferred !== undefined && !taken.has(preferred)) {
    const value = parseAddress(preferred);
    if (value >= first && value < first + count) return preferred;
  }
  const start = startingPoint(seed, count);
  for (let step = 0; step < count; step += 1) {
    const candidate = formatAddress(first + ((start + step) % count));
    if (!taken.has(candidate)) return candidate;
  }
  throw new Fault("exhausted", `choose an address for ${seed}: all ${count} of ${cidr} are taken`, {
    hint: "give the network a larger subnet, or run fewer instances in it",
  });
}

function startingPoint(seed: string, count: number): number {
  return Number.parseInt(shortHash(seed, 8), 16) % count;
}

function resolverCount(subnet: Subnet): number {
  return Math.min(mostResolvers, Math.floor(2 ** (32 - subnet.prefixLength) / 16));
}

function parseCidr(cidr: string): Subnet {
  const match = /^([0-9.]{7,15})\/([0-9]{1,2})$/.exec(cidr);
  const [, address = "", prefix = ""] = match ?? [];
  const prefixLength = Number(prefix);
  if (!isIPv4(address) || prefixLength > 32) {
    throw new Fault("invalid", `"${cidr}" is not an IPv4 subnet`, { hint: "write it like 10.20.0.0/24" });
  }
  return { base: parseAddress(address), prefixLength };
}

function firstOf(subnet: Subnet): number {
  const sizeOfSubnet = 2 ** (32 - subnet.prefixLength);
  return Math.floor(subnet.base / sizeOfSubnet) * sizeOfSubnet;
}

function lastOf(subnet: Subnet): number {
  return firstOf(subnet) + 2 ** (32 - subnet.prefixLength) - 1;
}
