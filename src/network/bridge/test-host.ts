import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backgroundCall } from "../../base/call.ts";
import { type Home, homeBeneath } from "../../base/home.ts";
import { instanceId, type NetworkId } from "../../base/id.ts";
import type { NetworkSpec, PortSpec } from "../contract.ts";
import { BridgeNetwork } from "./driver.ts";
import { listOwned } from "./owned.ts";

/** A driver with a root directory of its own, for tests inside a network namespace that the test runner made. */
export interface TestHost {
  readonly home: Home;
  readonly driver: BridgeNetwork;
  restart(): BridgeNetwork;
  /** Removes everything by the driver itself, and fails when anything is left. */
  dispose(): Promise<void>;
}

export function makeTestHost(): TestHost {
  execFileSync("ip", ["link", "set", "lo", "up"]);
  const root = mkdtempSync(join(tmpdir(), "bridge-"));
  const home = homeBeneath(root);
  let driver = new BridgeNetwork(home);
  return {
    home,
    get driver() {
      return driver;
    },
    restart() {
      driver.close();
      driver = new BridgeNetwork(home);
      return driver;
    },
    async dispose() {
      const call = backgroundCall();
      // The kernel takes links down with their namespace in a thread of its own, and what lingers is listed again.
      for (let pass = 0; pass < 500 && (pass === 0 || listOwned(home).length > 0); pass += 1) {
        const { networks, ports } = await driver.list(call);
        for (const { id } of ports) await driver.detach(id, call);
        for (const { id } of networks) await driver.remove(id, call);
        await call.clock.sleep(20);
      }
      driver.close();
      assert.deepEqual(listOwned(home), []);
      rmSync(root, { recursive: true });
    },
  };
}

export function network(name: string, subnet: string, internal = false): NetworkSpec {
  return { id: `shop.${name}` as NetworkId, subnet, internal };
}

/** An instance in a namespace, with these addresses in these networks. */
export function instance(name: string, nics: readonly (readonly [NetworkSpec, string])[]): PortSpec {
  return {
    id: instanceId("shop", name, 1, "0123abcd"),
    kind: "netns",
    hostname: name,
    nics: nics.map(([{ id }, address]) => ({ network: id, address, names: [name] })),
  };
}
