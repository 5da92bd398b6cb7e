import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { hostFault } from "../../host/errno.ts";
import type { RouteSocket } from "../../host/link.ts";
import type { Records } from "./record.ts";

/**
 * Forwarding between links, which the machine needs to be on for instances to reach the world.
 *
 * On a machine that forwarded nothing before, turning it on would make it a router between all its networks. So the links
 * it had then are remembered, and our table forwards nothing between those. On a machine that was a router already,
 * nothing is changed and nothing guarded.
 */
export interface ForwardingRecord {
  readonly uplinks: readonly string[];
}

const path = "/proc/sys/net/ipv4/ip_forward";
const record = "forwarding";

export function isForwarding(): boolean {
  return readFileSync(path, "utf8").trim() === "1";
}

export function enableForwarding(route: RouteSocket, records: Records<ForwardingRecord>): void {
  if (isForwarding()) return;
  // What is virtual (bridges of other software, tunnels) came to be forwarded between.
  const uplinks = route
    .links()
    .filter((link) => !link.loopback && link.kind === undefined)
    .map((link) => link.name);
  // First the record: a crash in between leaves a guard too many, not one too few.
  records.put(record, { uplinks });
  writeSysctl(path, "1");
}

/** When no network is left: as it was before. */
export function restoreForwarding(records: Records<ForwardingRecord>): void {
  if (records.get(record) === undefined) return;
  writeSysctl(path, "0");
  records.remove(record);
}

/** Links between which nothing may be forwarded. */
export function guardedUplinks(records: Records<ForwardingRecord>): readonly string[] {
  return records.get(record)?.uplinks ?? [];
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
