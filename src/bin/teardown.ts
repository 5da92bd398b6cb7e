import { rmdirSync } from "node:fs";
import type { Call } from "../base/call.ts";
import type { Home } from "../base/home.ts";
import { listMounts, unmount } from "../host/mount.ts";
import type { Drivers } from "./drivers.ts";

/**
 * Takes everything of a home off the host: workloads, links, namespaces, tables, resolvers, mounts, cgroups. Data stays:
 * the daemon, started again, brings everything back. For uninstalling, and for tests.
 */
export async function tearDown(home: Home, drivers: Drivers, call: Call): Promise<void> {
  const { engine, pool, network } = drivers;
  for (const { id } of await engine.list(call)) await engine.remove(id, call);
  await network.publish({ names: [], published: [] }, call);
  const wired = await network.list(call);
  for (const { id } of wired.ports) await network.detach(id, call);
  for (const { id } of wired.networks) await network.remove(id, call);
  const stored = await pool.list(call);
  for (const { id } of stored.roots) await pool.detachRoot(id, call);
  for (const { id } of stored.volumes) await pool.detachVolume(id, call);
  for (const directory of [home.runDir, home.libDir]) {
    // The innermost first: later mounts lie upon earlier ones.
    for (const mount of listMounts(directory).toReversed()) await unmount(mount.target, { detach: true });
  }
  removeCgroups(home);
}

/** The directory that holds our instances' cgroups, in each hierarchy; empty by now. */
function removeCgroups(home: Home): void {
  const hierarchies = listMounts("/sys/fs/cgroup").filter((mount) => mount.type.startsWith("cgroup"));
  for (const { target } of hierarchies) {
    try {
      rmdirSync(`${target}/${home.prefix}`);
    } catch {
      // Never made in this hierarchy.
    }
  }
}
