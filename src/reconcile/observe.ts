import { parseInstanceId, type InstanceId } from "../base/id.ts";
import type { InstanceSection } from "../stack/model.ts";
import type { Observed, ObservedInstance } from "../stack/plan/step.ts";
import type { HealthMonitor } from "./health.ts";
import type { AddressBook } from "./address-book.ts";
import { volumeIdOf } from "./parts.ts";
import { stackOf, type Sight } from "./sight.ts";
import type { StackState } from "./stack-state.ts";

/** What is there of one stack, in the plan's words. Reads caches only. */
export function observe(
  state: StackState,
  seen: { readonly sight: Sight; readonly health: HealthMonitor; readonly book: AddressBook },
  restartAfterMs: (id: InstanceId) => number | undefined,
): Observed {
  const { sight } = seen;
  const instances: ObservedInstance[] = [];
  for (const id of sight.ofStack(state.name)) {
    const instance = observeInstance(id, state, seen, restartAfterMs(id));
    if (instance !== undefined) instances.push(instance);
  }
  // A record of what is neither wanted nor there any more: removing it once more takes the record away.
  for (const id of state.instanceIds()) {
    if (sight.ofStack(state.name).has(id) || state.desiredInstance(id) !== undefined) continue;
    instances.push({ id, status: "created", health: "none", intact: false, attached: true });
  }
  const networks = [...sight.networks]
    .filter(([id]) => stackOf(id) === state.name)
    .map(([id, { subnet, internal, intact }]) => ({ id, section: { subnet, internal }, intact }));
  const kept = new Set(state.record?.protectedVolumes);
  const volumes = [...sight.volumes.values()]
    .filter((volume) => stackOf(volume.id) === state.name)
    .map((volume) => ({
      id: volume.id,
      section: {
        ...(volume.sizeBytes === undefined ? {} : { sizeBytes: volume.sizeBytes }),
        protect: kept.has(volume.id.slice(state.name.length + 1)),
      },
    }));
  const disks = [...sight.disks].flatMap(([instance, names]) =>
    parseInstanceId(instance)?.stack === state.name ? [...names].map((name) => ({ instance, name })) : [],
  );
  return { networks, volumes, disks, instances };
}

function observeInstance(
  id: InstanceId,
  state: StackState,
  { sight, health }: { readonly sight: Sight; readonly health: HealthMonitor },
  restartAfterMs: number | undefined,
): ObservedInstance | undefined {
  const facts = sight.instances.get(id);
  const record = state.instance(id);
  const desired = state.desiredInstance(id);
  if (facts === undefined) {
    // Only storage or links of it are there. Wanted: making it attaches them. Not wanted: they must go.
    if (desired !== undefined) return undefined;
    return { id, status: "created", health: "none", intact: false, attached: true };
  }
  const section = desired?.section ?? record?.section;
  const { endedPid, revert } = record ?? {};
  // A run that ended by request is over and done with: it is as if it never ran.
  const settled = endedPid !== undefined && facts.status === "exited";
  const running = facts.status === "running";
  return {
    id,
    status: settled ? "created" : facts.status,
    health: section?.health === undefined || !running ? "none" : health.health(id).health,
    ...(record === undefined ? {} : { section: record.section, ...record.pinned }),
    intact: facts.intact,
    // What it was last asked to stand on: a disk that comes in this generation is a change, not a loss.
    attached:
      isAttached(id, record?.section ?? section, sight) &&
      (running || facts.status === "frozen" || hasVolumes(state.name, record?.section ?? section, sight)),
    ...(facts.exit === undefined || settled ? {} : { exitCode: facts.exit.code }),
    ...(restartAfterMs === undefined ? {} : { restartAfterMs }),
    ...(running && endedPid !== undefined && endedPid === (facts.pid ?? 0) ? { restartAsked: true } : {}),
    ...(revert === undefined || revert.mark === facts.revertMark ? {} : { revertAsked: revert.snapshot }),
    ...(facts.elastic === undefined ? {} : { elastic: facts.elastic }),
    ...(sight.engineOf(id)?.hotplug === undefined ? {} : { plugs: true }),
  };
}

/** Whether all that it stands on is there: links and root, or links and disks. */
function isAttached(id: InstanceId, section: InstanceSection | undefined, sight: Sight): boolean {
  const isLinked = sight.ports.get(id) === true;
  if (section?.kind !== "vm") return isLinked && sight.roots.get(id) === true;
  const disks = sight.disks.get(id);
  const hasDisks = (section.disks ?? []).every(({ name, from }) => from.kind === "iso" || disks?.has(name) === true);
  // Without networks there is nothing that could be missing.
  return hasDisks && (isLinked || section.networks.length === 0);
}

/** What runs holds its volumes by mounts of its own, also where the host's were taken away; only the next start needs those. */
function hasVolumes(stack: string, section: InstanceSection | undefined, sight: Sight): boolean {
  return (section?.mounts ?? []).every(
    (mount) => mount.kind !== "volume" || sight.volumes.get(volumeIdOf(stack, mount.volume))?.attached === true,
  );
}
