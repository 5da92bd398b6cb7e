import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../base/call.ts";
import type { Home } from "../base/home.ts";
import { removeGroup } from "../host/cgroup.ts";
import { errnoOf } from "../host/errno.ts";
import { listMounts, unmount } from "../host/mount.ts";
import type { Drivers } from "./drivers.ts";

/**
 * Takes everything of a home off the host: workloads, links, namespaces, tables, resolvers, mounts, cgroups. Data stays:
 * the daemon, started again, brings everything back. For uninstalling, and for tests.
 */
export async function tearDown(home: Home, drivers: Drivers, call: Call): Promise<void> {
  const { engines, pool, network } = drivers;
  for (const engine of Object.values(engines)) {
    for (const { id } of await engine.list(call)) await engine.remove(id, call);
  }
  await network.publish({ names: [], published: [] }, call);
  const wired = await network.list(call);
  for (const { id } of wired.ports) await network.detach(id, call);
  for (const { id } of wired.networks) await network.remove(id, call);
  const stored = await pool.list(call);
  for (const { id } of stored.roots) await pool.detachRoot(id, call);
  for (const { id } of stored.volumes) await pool.detachVolume(id, call);
  for (const directory of [home.runDir, home.libDir]) {
    // The innermost first: later mounts lie upon earlier ones. A disk that somebody gave to all of our data is theirs.
    const ours = listMounts(directory).filter(({ target }) => target !== home.libDir);
    for (const mount of ours.toReversed()) await unmount(mount.target, { detach: true });
  }
  await removeCgroups(home, call);
}

/**
 * What holds the cgroups of our instances and of their monitors, in each hierarchy, with whatever a run that was killed
 * left in it.
 */
async function removeCgroups(home: Home, call: Call): Promise<void> {
  const hierarchies = listMounts("/sys/fs/cgroup").filter((mount) => mount.type.startsWith("cgroup"));
  for (const { target } of hierarchies) {
    // Never made in every hierarchy.
    if (readdirSync(target).includes(home.prefix)) await removeCgroup(join(target, home.prefix), call);
  }
}

async function removeCgroup(path: string, call: Call): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      return removeGroup(path);
    } catch (error) {
      // A monitor that was just killed still counts for a moment.
      if (errnoOf(error) !== "EBUSY" || tries === 100) throw error;
      await call.clock.sleep(20, call.signal);
    }
  }
}
