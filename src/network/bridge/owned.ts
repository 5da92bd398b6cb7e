import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Home, tableName } from "../../base/home.ts";
import { errnoOf } from "../../host/errno.ts";
import { RouteSocket } from "../../host/link.ts";
import { listNamespaces } from "../../host/netns.ts";
import { runNft } from "../../host/nftables.ts";

/**
 * Everything on this host that belongs to a home's networks, found by its prefix and its directory alone, whatever the
 * records say: `link croft-1a2b3c4`, `namespace …`, `process 812 …`, `table croft`. Empty after all was removed.
 */
export function listOwned(home: Home): string[] {
  using route = new RouteSocket();
  const links = route.links().filter(({ name }) => name.startsWith(`${home.prefix}-`));
  const tables = runNft("list tables", "list tables").split("\n");
  const table = tableName(home);
  return [
    ...links.map(({ name, alias }) => `link ${name}${alias === undefined ? "" : ` (${alias})`}`),
    ...listNamespaces(join(home.runDir, "netns")).map((path) => `namespace ${path}`),
    ...resolverProcesses(home).map((pid) => `process ${pid} (dnsmasq)`),
    ...(tables.includes(`table inet ${table}`) ? [`table ${table}`] : []),
    ...(tables.includes(`table bridge ${table}`) ? [`table ${table} of links`] : []),
  ];
}

/** Numbers of the dnsmasq processes whose configuration lies in this home. */
export function resolverProcesses(home: Home): number[] {
  const argument = `--conf-file=${join(home.runDir, "network")}/`;
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && commandLine(pid).some((part) => part.startsWith(argument)));
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch (error) {
    // It ended meanwhile.
    if (["ENOENT", "ESRCH"].includes(errnoOf(error) ?? "")) return [];
    throw error;
  }
}
