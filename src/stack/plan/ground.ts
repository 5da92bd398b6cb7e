import type { InstanceId } from "../../base/id.ts";
import { formatSize } from "../../base/unit.ts";
import type { NetworkSection } from "../model.ts";
import type { Draft } from "./draft.ts";
import type { Desired, Observed, ObservedInstance, PlanOptions } from "./step.ts";

/** Networks and volumes: what instances stand on. Made before them, removed after them. */
export interface Ground {
  /** The step of this plan that makes the network or volume ready, by its name in the file. */
  readonly networkSteps: ReadonlyMap<string, string>;
  readonly volumeSteps: ReadonlyMap<string, string>;
  /**
   * Networks whose addresses change. A bridge cannot carry two address ranges at once, so every old instance on it
   * must be gone before the network changes, and every new one comes after.
   */
  readonly readdressed: ReadonlySet<string>;
}

/** Plans the networks and volumes that should be there. */
export function planGround(desired: Desired, observed: Observed, draft: Draft): Ground {
  const networkSteps = new Map<string, string>();
  const volumeSteps = new Map<string, string>();
  const readdressed = new Set<string>();

  const networks = new Map(observed.networks.map((network) => [network.id, network]));
  for (const { id, name, section } of desired.networks) {
    const there = networks.get(id);
    if (there === undefined) {
      networkSteps.set(name, draft.add({ kind: "create-network", network: id }, "none", "not there yet"));
      continue;
    }
    const moves = section.subnet !== undefined && section.subnet !== there.section.subnet;
    const why = networkChange(there.section, section, moves) ?? (there.intact ? undefined : "parts of it are missing");
    if (why === undefined) continue;
    networkSteps.set(name, draft.add({ kind: "update-network", network: id }, "hot", why));
    if (moves) readdressed.add(name);
  }

  const volumes = new Map(observed.volumes.map((volume) => [volume.id, volume.section]));
  for (const { id, name, section } of desired.volumes) {
    const there = volumes.get(id);
    if (there === undefined) {
      volumeSteps.set(name, draft.add({ kind: "create-volume", volume: id }, "none", "not there yet"));
    } else if (section.sizeBytes !== undefined && there.sizeBytes !== section.sizeBytes) {
      // A size taken out of the file leaves the volume as it is: a quota that holds cannot be lifted in place.
      if (there.sizeBytes !== undefined && section.sizeBytes < there.sizeBytes) {
        const sizes = `${formatSize(there.sizeBytes)} to ${formatSize(section.sizeBytes)}`;
        draft.refuse(
          `volume ${name}`,
          `it cannot shrink from ${sizes}`,
          "keep the larger size, or move the data to a new volume",
        );
      } else {
        const from = there.sizeBytes === undefined ? "no limit" : formatSize(there.sizeBytes);
        const action = { kind: "resize-volume", volume: id, sizeBytes: section.sizeBytes } as const;
        draft.add(action, "hot", `size ${from} → ${formatSize(section.sizeBytes)}`);
      }
    }
  }
  return { networkSteps, volumeSteps, readdressed };
}

function networkChange(there: NetworkSection, section: NetworkSection, moves: boolean): string | undefined {
  if (moves) return `subnet ${there.subnet ?? "chosen"} → ${section.subnet}`;
  if (there.internal !== section.internal) return section.internal ? "becomes internal" : "no longer internal";
  return undefined;
}

/** Which removals of instances free a network or volume: kept while instances are planned. */
export class Tenancy {
  readonly #removals: { readonly instance: ObservedInstance; readonly key: string }[] = [];

  removed(instance: ObservedInstance, key: string): void {
    this.#removals.push({ instance, key });
  }

  /** By network name, the steps that take instances off it. One whose section is unknown may be on any. */
  byNetwork(names: readonly string[]): Map<string, string[]> {
    return this.#by(names, (instance) => instance.section?.networks ?? names);
  }

  byVolume(names: readonly string[]): Map<string, string[]> {
    return this.#by(names, (instance) => {
      const mounts = instance.section?.mounts;
      return mounts === undefined ? names : mounts.flatMap((mount) => (mount.kind === "volume" ? [mount.volume] : []));
    });
  }

  /** The step that removes an instance. */
  removalOf(id: InstanceId): string | undefined {
    return this.#removals.find(({ instance }) => instance.id === id)?.key;
  }

  #by(names: readonly string[], uses: (instance: ObservedInstance) => readonly string[]): Map<string, string[]> {
    const keys = new Map<string, string[]>(names.map((name) => [name, []]));
    if (names.length === 0) return keys;
    for (const { instance, key } of this.#removals) {
      for (const name of uses(instance)) keys.get(name)?.push(key);
    }
    return keys;
  }
}

/** Plans what stands under instances no more, and holds address changes back until the old instances are off. */
export function planGroundRemoval(
  desired: Desired,
  observed: Observed,
  options: PlanOptions,
  ground: Ground,
  tenancy: Tenancy,
  draft: Draft,
): void {
  for (const [name, keys] of tenancy.byNetwork([...ground.readdressed])) {
    draft.delay(ground.networkSteps.get(name) ?? "", keys);
  }

  const networks = new Set(desired.networks.map((network) => network.id));
  const lostNetworks = observed.networks.filter((network) => !networks.has(network.id));
  const offNetwork = tenancy.byNetwork(lostNetworks.map((network) => nameOf(network.id)));
  for (const { id } of lostNetworks) {
    draft.add({ kind: "remove-network", network: id }, "none", "no longer wanted", {
      after: offNetwork.get(nameOf(id)) ?? [],
    });
  }

  if (!options.removeVolumes) return;
  planDiskRemoval(desired, observed, tenancy, draft);
  const volumes = new Set(desired.volumes.map((volume) => volume.id));
  const lostVolumes = observed.volumes.filter((volume) => !volumes.has(volume.id));
  const offVolume = tenancy.byVolume(lostVolumes.map((volume) => nameOf(volume.id)));
  for (const { id, section } of lostVolumes) {
    if (section.protect) {
      draft.refuse(
        `volume ${nameOf(id)}`,
        "it is protected, and would be destroyed with its data",
        "set protect = false on it, run croft up, and try again",
      );
    } else {
      draft.add({ kind: "remove-volume", volume: id }, "data-loss", "no longer wanted", {
        after: offVolume.get(nameOf(id)) ?? [],
      });
    }
  }
}

/** Disks outlive their machine, as volumes do: they go when that is asked for. */
function planDiskRemoval(desired: Desired, observed: Observed, tenancy: Tenancy, draft: Draft): void {
  const wanted = new Map(desired.instances.map((instance) => [instance.id, instance]));
  const there = new Set(observed.instances.map(({ id }) => id));
  for (const { instance, name: disk } of observed.disks) {
    const owner = wanted.get(instance);
    if (owner?.section.disks?.some(({ name }) => name === disk) === true) continue;
    const removal = tenancy.removalOf(instance);
    // Whose removal is refused keeps its disks.
    if (owner === undefined && removal === undefined && there.has(instance)) continue;
    const why = owner === undefined ? "its machine is no longer wanted" : "no longer wanted";
    draft.add({ kind: "remove-disk", instance, disk }, "data-loss", why, {
      after: removal === undefined ? draft.of(instance, "update-instance") : [removal],
    });
  }
}

/** The name in the file: what follows the stack's name, which has no dot. */
function nameOf(id: string): string {
  return id.slice(id.indexOf(".") + 1);
}
