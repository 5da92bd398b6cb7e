import { join } from "node:path";
import type { Call, Clock } from "../base/call.ts";
import type { Home } from "../base/home.ts";
import type { EventBus } from "../event/contract.ts";
import { SqliteEventBus } from "../event/sqlite/event-bus.ts";
import { RouteSocket } from "../host/link.ts";
import { ContainerEngine } from "../instance/crun/engine.ts";
import { chooseRuntime } from "../instance/crun/probe.ts";
import { MicrovmEngine } from "../instance/qemu/microvm/engine.ts";
import { MachineEngine } from "../instance/qemu/vm/engine.ts";
import { BridgeNetwork } from "../network/bridge/driver.ts";
import type { NetworkDriver } from "../network/contract.ts";
import type { EnginesByKind } from "../reconcile/engines.ts";
import type { Pool } from "../storage/contract.ts";
import { OverlayPool } from "../storage/overlay/pool.ts";
import type { Store } from "../store/contract.ts";
import { Database } from "../store/sqlite/database.ts";
import { SqliteStore } from "../store/sqlite/store.ts";

/** The drivers a daemon works with. This file is the only one that names concrete ones. */
export interface Drivers {
  /** By the kind of instance each runs. */
  readonly engines: EnginesByKind;
  readonly pool: Pool;
  readonly network: NetworkDriver;
  readonly store: Store;
  readonly events: EventBus;
  /** Closes the database; nothing may be asked of store and events afterwards. */
  close(): Promise<void>;
}

export async function openDrivers(home: Home, clock: Clock, call: Call): Promise<Drivers> {
  const database = Database.open(join(home.libDir, "croft.db"));
  const store = new SqliteStore(database);
  const events = new SqliteEventBus(database, clock);
  return {
    engines: await openEngines(home, call),
    pool: new OverlayPool(home),
    network: new BridgeNetwork(home),
    store,
    events,
    async close() {
      await events.close();
      await store.close();
      database[Symbol.dispose]();
    },
  };
}

/** One line for each kind. What cannot work on this host is opened all the same: its probe says why when it is asked for. */
async function openEngines(home: Home, call: Call): Promise<EnginesByKind> {
  const runtime = await chooseRuntime(home, call);
  return {
    container: new ContainerEngine({ home, runtime }),
    microvm: new MicrovmEngine({ home, runtime }),
    vm: new MachineEngine({ home, runtime }),
  };
}

/** Subnets that the host has routes to, other than by its default route: networks of ours must not cover them. */
export function listForeignSubnets(): readonly string[] {
  using socket = new RouteSocket();
  return socket
    .routes()
    .filter((route) => route.prefixLength > 0)
    .map((route) => `${route.destination}/${route.prefixLength}`);
}
