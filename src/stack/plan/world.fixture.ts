import assert from "node:assert/strict";
import { parseInstanceId } from "../../base/id.ts";
import type { InstanceSection, NetworkSection, VolumeSection } from "../model.ts";
import { membersThatChange } from "../change.ts";
import { isHealthy, isUp, staysEnded } from "./slot.ts";
import type { Desired, Observed, ObservedInstance, Plan, Step } from "./step.ts";

type Mutable<Type> = { -readonly [Member in keyof Type]: Type[Member] };
type WorldInstance = Mutable<ObservedInstance>;

/**
 * A host as the plan believes it to be: steps change it as they promise to, and complain when they are done too early.
 * What the tests of the plan run on.
 */
export class World {
  readonly networks = new Map<
    string,
    { id: Observed["networks"][number]["id"]; section: NetworkSection; intact: boolean }
  >();
  readonly volumes = new Map<string, { id: Observed["volumes"][number]["id"]; section: VolumeSection }>();
  readonly instances = new Map<string, WorldInstance>();
  /** `ID/NAME` of disks of machines. */
  readonly disks = new Set<string>();

  observe(): Observed {
    return structuredClone({
      networks: [...this.networks.values()],
      volumes: [...this.volumes.values()],
      disks: [...this.disks].map((disk) => {
        const [instance = "", name = ""] = disk.split("/");
        return { instance: instance as ObservedInstance["id"], name };
      }),
      instances: [...this.instances.values()],
    });
  }

  apply(step: Step, desired: Desired): void {
    const { action } = step;
    switch (action.kind) {
      case "create-network":
      case "update-network":
        this.#makeNetwork(action.network, desired, step);
        break;
      case "remove-network":
        for (const instance of this.instances.values()) {
          assert(!this.#isOn(instance, action.network), `${step.key} while ${instance.id} is on it`);
        }
        assert(this.networks.delete(action.network), step.key);
        break;
      case "create-volume":
      case "resize-volume": {
        const volume = desired.volumes.find((candidate) => candidate.id === action.volume);
        assert(volume !== undefined, step.key);
        this.volumes.set(volume.id, { id: volume.id, section: volume.section });
        break;
      }
      case "remove-volume":
        for (const instance of this.instances.values()) {
          const mounts = instance.section?.mounts ?? [];
          const uses = mounts.some((mount) => mount.kind === "volume" && action.volume.endsWith(`.${mount.volume}`));
          assert(!uses, `${step.key} while ${instance.id} uses it`);
        }
        assert(this.volumes.delete(action.volume), step.key);
        break;
      case "remove-disk": {
        const owner = this.instances.get(action.instance);
        const isUsed = owner?.section?.disks?.some(({ name }) => name === action.disk) === true;
        assert(!isUsed, `${step.key} while ${action.instance} uses it`);
        assert(this.disks.delete(`${action.instance}/${action.disk}`), step.key);
        break;
      }
      default:
        this.#applyToInstance(step, action.instance, desired);
    }
  }

  /** How many of a section work, old and new together. */
  healthyCount(name: string): number {
    let count = 0;
    for (const instance of this.instances.values()) {
      const works = instance.status === "running" && (instance.health === "healthy" || instance.health === "none");
      if (works && parseInstanceId(instance.id)?.name === name) count += 1;
    }
    return count;
  }

  #applyToInstance(step: Step, id: ObservedInstance["id"], desired: Desired): void {
    const wanted = desired.instances.find((candidate) => candidate.id === id);
    const there = this.instances.get(id);
    if (step.action.kind === "create-instance") {
      assert(wanted !== undefined && there === undefined, step.key);
      this.#checkGround(wanted.section, desired, step);
      this.instances.set(id, {
        id,
        status: "created",
        health: "none",
        section: wanted.section,
        intact: true,
        attached: true,
      });
      this.#makeDisks(id, wanted.section);
      return;
    }
    assert(there !== undefined, `${step.key}: it is not there`);
    switch (step.action.kind) {
      case "start-instance":
        assert(wanted !== undefined && there.intact && there.attached && !isUp(there), step.key);
        this.#checkGround(wanted.section, desired, step);
        this.#checkNeeds(wanted.section, desired, step);
        if (wanted.section.update.order === "stop-first") {
          for (const other of this.instances.values())
            assert(other === there || !sameSlot(other, there) || !isUp(other), step.key);
        }
        there.status = "running";
        delete there.restartAsked;
        Object.assign(there, abilities(wanted.section));
        there.health = wanted.section.health === undefined ? "none" : "starting";
        break;
      case "await-healthy":
        assert(there.status === "running", `${step.key}: it is not running`);
        there.health = "healthy";
        break;
      case "update-instance":
        assert(wanted !== undefined, step.key);
        this.#checkAlteration(there, wanted.section, step);
        if (!isUp(there) && wanted.section.kind !== "container") there.attached = true;
        there.section = wanted.section;
        this.#makeDisks(id, wanted.section);
        if (wanted.section.health === undefined) there.health = "none";
        else if (there.health === "none" && there.status === "running") there.health = "starting";
        break;
      case "repair-instance":
        assert(wanted !== undefined && !isUp(there), step.key);
        this.#checkGround(wanted.section, desired, step);
        there.attached = true;
        break;
      case "suspend-instance":
        assert(isUp(there), step.key);
        there.status = "suspended";
        there.health = "none";
        break;
      case "revert-instance":
        assert(there.revertAsked !== undefined, step.key);
        delete there.revertAsked;
        there.status = "created";
        there.health = "none";
        break;
      case "stop-instance":
        assert(isUp(there) || there.status === "suspended", step.key);
        there.status = "created";
        there.health = "none";
        break;
      default:
        assert(!isUp(there), `${step.key} while it runs`);
        this.instances.delete(id);
    }
  }

  #makeDisks(id: string, { disks = [] }: InstanceSection): void {
    for (const { name, from } of disks) if (from.kind !== "iso") this.disks.add(`${id}/${name}`);
  }

  /** What changes on something that is up must be able to. */
  #checkAlteration(there: WorldInstance, section: InstanceSection, step: Step): void {
    if (!isUp(there)) return;
    for (const member of ["cpus", "memoryBytes", "pids"] as const) {
      const wanted = section[member];
      if (there.elastic === undefined || there.section?.[member] === wanted) continue;
      const bounds = there.elastic[member];
      assert(wanted !== undefined && bounds !== undefined, `${step.key}: ${member} while it runs`);
      assert(wanted >= bounds.min && wanted <= bounds.max, `${step.key}: ${member} beyond its bounds`);
    }
    for (const member of membersThatChange(section.kind, "restart")) {
      assert.deepEqual(there.section?.[member], section[member], `${step.key}: ${member} while it runs`);
    }
    if (there.plugs === true || section.kind !== "vm") return;
    assert.deepEqual(there.section?.networks, section.networks, `${step.key}: networks while it runs`);
    assert.deepEqual(there.section?.disks, section.disks, `${step.key}: disks while it runs`);
  }

  #makeNetwork(id: string, desired: Desired, step: Step): void {
    const network = desired.networks.find((candidate) => candidate.id === id);
    assert(network !== undefined, step.key);
    const there = this.networks.get(id);
    const chosen = there?.section.subnet ?? "10.250.0.0/24";
    const subnet = network.section.subnet ?? chosen;
    if (there !== undefined && subnet !== there.section.subnet) {
      const kept = new Set<string>(desired.instances.map((instance) => instance.id));
      for (const instance of this.instances.values()) {
        assert(kept.has(instance.id) || !this.#isOn(instance, id), `${step.key} while ${instance.id} is on it`);
        const isMachine = instance.section?.kind === "vm";
        assert(!isMachine || !isUp(instance) || !this.#isOn(instance, id), `${step.key} while ${instance.id} is up`);
      }
    }
    this.networks.set(id, { id: network.id, section: { ...network.section, subnet }, intact: true });
  }

  #isOn(instance: ObservedInstance, network: string): boolean {
    return instance.section?.networks.some((name) => network.endsWith(`.${name}`)) ?? false;
  }

  #checkGround(section: InstanceSection, desired: Desired, step: Step): void {
    for (const name of section.networks) {
      const network = this.networks.get(`${desired.stack}.${name}`);
      assert(network?.intact === true, `${step.key} before network ${name}`);
      const wanted = desired.networks.find((candidate) => candidate.name === name)?.section.subnet;
      assert(wanted === undefined || wanted === network.section.subnet, `${step.key} before network ${name} moved`);
    }
    for (const mount of section.mounts) {
      if (mount.kind !== "volume") continue;
      assert(this.volumes.has(`${desired.stack}.${mount.volume}`), `${step.key} before volume ${mount.volume}`);
    }
  }

  #checkNeeds(section: InstanceSection, desired: Desired, step: Step): void {
    for (const needed of desired.instances.filter((candidate) => section.needs.includes(candidate.name))) {
      if (!needed.running) continue;
      const there = this.instances.get(needed.id);
      assert(there !== undefined, `${step.key} before ${needed.id} is there`);
      const settled = there.status === "frozen" || staysEnded(there, needed);
      assert(settled || isHealthy(there, needed), `${step.key} before ${needed.id} is healthy`);
    }
  }
}

/** A guest that has just started can get less than it was started with; a machine, other disks too. */
function abilities({ kind, pids = 1, cpus = 1, memoryBytes = 1 }: InstanceSection): Partial<ObservedInstance> {
  if (kind === "container") return {};
  const elastic = {
    cpus: { min: 0.01, max: cpus },
    memoryBytes: { min: 1, max: memoryBytes },
    pids: { min: 1, max: pids },
  };
  // Some can be plugged and some cannot: the larger ones can, here.
  return { elastic, ...(kind === "vm" && memoryBytes > 2 ** 26 ? { plugs: true } : {}) };
}

function sameSlot(left: ObservedInstance, right: ObservedInstance): boolean {
  const [one, other] = [parseInstanceId(left.id), parseInstanceId(right.id)];
  return one?.name === other?.name && one?.ordinal === other?.ordinal;
}

/**
 * Does steps of a plan in an order that `after` allows, picked by `pick`, until `limit` are done or none is left.
 * Complains when some remain but none may be done: a circle, or a predecessor that is not in the plan.
 */
export function perform(
  world: World,
  desired: Desired,
  plan: Plan,
  pick: (choices: number) => number,
  limit: number,
  watch: (step: Step) => void = () => {},
): void {
  const keys = new Set(plan.steps.map((step) => step.key));
  assert.equal(keys.size, plan.steps.length, "keys are unique");
  for (const step of plan.steps) for (const key of step.after) assert(keys.has(key), `${step.key} waits for ${key}`);
  const left = [...plan.steps];
  const reverted = new Set(
    plan.steps.flatMap(({ action }) => (action.kind === "revert-instance" ? [action.instance] : [])),
  );
  const isForNextPlan = ({ action }: Step): boolean => action.kind === "await-healthy" && reverted.has(action.instance);
  for (let done = 0; done < limit && left.length > 0; done += 1) {
    const unblocked = left.filter((step) => step.after.every((key) => !keys.has(key)));
    const ready = unblocked.filter((step) => !isForNextPlan(step));
    // What waits for one that went back to a snapshot is planned anew, when it is known what it came back as.
    if (ready.length === 0 && unblocked.length > 0) return;
    assert(
      ready.length > 0,
      `nothing of this can be done: ${left.map((step) => `${step.key} after [${step.after.join()}]`).join("; ")}`,
    );
    const step = ready[pick(ready.length)];
    assert(step !== undefined);
    world.apply(step, desired);
    watch(step);
    keys.delete(step.key);
    left.splice(left.indexOf(step), 1);
  }
}
