import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { isOfSomeHome } from "../../base/home.ts";
import { hostFault } from "../../host/errno.ts";
import type { RouteSocket } from "../../host/link.ts";
import type { Records } from "./record.ts";

/**
 * Forwarding between links, which the machine needs to be on for instances to reach the world.
 *
 * On a machine that forwarded nothing before, turning it on would make it a router between all its networks. So the links
 * it had then are remembered, of whatever kind (a bridge, a bond and a tunnel lead into networks as a card does), and our
 * table forwards no IPv4 between those. On a machine that was a router already, nothing is changed and nothing guarded.
 *
 * What came later, such as Docker's bridge, found forwarding on and may rely on that. While it is there, forwarding stays
 * on after our last network, and the guard with it.
 */
export interface ForwardingRecord {
  /** Links that forwarded nothing. */
  readonly uplinks: readonly string[];
  /** Links that forwarded already, by settings of their own, which go off with the machine's and are set again. */
  readonly routers?: readonly string[];
}

const path = "/proc/sys/net/ipv4/ip_forward";
const record = "forwarding";

export function isForwarding(link?: string): boolean {
  const setting = link === undefined ? path : forwardingOf(link);
  return existsSync(setting) && readFileSync(setting, "utf8").trim() === "1";
}

export function enableForwarding(route: RouteSocket, records: Records<ForwardingRecord>): void {
  const known = records.get(record);
  if (known === undefined && isForwarding()) return;
  // First the record: a crash in between leaves a guard too many, not one too few.
  records.put(record, known === undefined ? linksBefore(route) : withLateCards(known, route));
  if (!isForwarding()) writeSysctl(path, "1");
}

/** When no network is left: as it was before, unless others rely on it by now. `prefix`: of our own links. */
export function restoreForwarding(route: RouteSocket, prefix: string, records: Records<ForwardingRecord>): void {
  const before = records.get(record);
  if (before === undefined) return;
  const { uplinks, routers = [] } = before;
  const known = new Set([...uplinks, ...routers]);
  const cameLater = route.links().some(({ name, kind, loopback }) => {
    return !loopback && kind !== undefined && !known.has(name) && !name.startsWith(`${prefix}-`);
  });
  if (cameLater) return;
  writeSysctl(path, "0");
  for (const link of routers) writeSysctl(forwardingOf(link), "1");
  records.remove(record);
}

/** Links between which nothing may be forwarded. */
export function guardedUplinks(records: Records<ForwardingRecord>): readonly string[] {
  return records.get(record)?.uplinks ?? [];
}

function linksBefore(route: RouteSocket): ForwardingRecord {
  const names = route
    .links()
    .filter(({ name, loopback }) => !loopback && !isOfSomeHome(name))
    .map(({ name }) => name);
  const routers = names.filter((name) => isForwarding(name));
  const uplinks = names.filter((name) => !routers.includes(name));
  return routers.length === 0 ? { uplinks } : { uplinks, routers };
}

/** A network card that was found late, or is called otherwise by now, relies on nothing: it is guarded like the others. */
function withLateCards({ uplinks, routers = [] }: ForwardingRecord, route: RouteSocket): ForwardingRecord {
  const known = new Set([...uplinks, ...routers]);
  const late = route.links().filter(({ name, kind, loopback }) => !loopback && kind === undefined && !known.has(name));
  return { uplinks: [...uplinks, ...late.map(({ name }) => name)], ...(routers.length === 0 ? {} : { routers }) };
}

function forwardingOf(link: string): string {
  return `/proc/sys/net/ipv4/conf/${link}/forwarding`;
}

/** Writes a kernel setting; one that this kernel does not have is passed over. */
export function writeSysctl(path: string, value: string): void {
  if (!existsSync(path)) return;
  try {
    writeFileSync(path, value);
  } catch (error) {
    throw hostFault(error, `set ${path} to ${value}`);
  }
}
