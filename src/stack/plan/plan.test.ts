import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { parseInstanceId, sha256 } from "../../base/id.ts";
import type { Generation } from "../model.ts";
import { same } from "./diff.ts";
import { expand } from "./expand.ts";
import { plan } from "./plan.ts";
import { isUp } from "./slot.ts";
import { anyFault, anyGeneration, nothing } from "./stack.fixture.ts";
import type { AnyFault } from "./stack.fixture.ts";
import type { Desired, Plan } from "./step.ts";
import { perform, World } from "./world.fixture.ts";

const keepVolumes = { removeVolumes: false };
const nobody: ReadonlySet<string> = new Set();
const rounds = { numRuns: 500 };

/** Picks among steps as a generated list of numbers says. */
function picker(choices: readonly number[]): (count: number) => number {
  let at = 0;
  return (count) => (choices[at++ % Math.max(1, choices.length)] ?? 0) % count;
}

function converge(world: World, desired: Desired, pick: (count: number) => number = () => 0): void {
  const first = plan(desired, world.observe(), keepVolumes);
  perform(world, desired, first, pick, Infinity);
  // What a machine is after it went back depends on the snapshot, so what follows is planned then: once, and not again.
  if (!first.steps.some(({ action }) => action.kind === "revert-instance")) return;
  perform(world, desired, plan(desired, world.observe(), keepVolumes), pick, Infinity);
}

function settled(generation: Generation): World {
  const world = new World();
  converge(world, expand(generation, nobody));
  return world;
}

function shrinks(older: Generation, newer: Generation): boolean {
  return Object.entries(newer.spec.volumes).some(
    ([name, { sizeBytes = Infinity }]) => sizeBytes < (older.spec.volumes[name]?.sizeBytes ?? 0),
  );
}

function inflict(world: World, { kind, which }: AnyFault): void {
  const networks = [...world.networks.values()];
  const network = networks[which % Math.max(1, networks.length)];
  if (kind === "network-broken" && network !== undefined) network.intact = false;
  if (kind === "network-gone" && network !== undefined) {
    world.networks.delete(network.id);
    for (const instance of world.instances.values()) {
      if (instance.section?.networks.some((name) => network.id.endsWith(`.${name}`)) !== false)
        instance.attached = false;
    }
  }
  const instances = [...world.instances.values()];
  const instance = instances[which % Math.max(1, instances.length)];
  if (instance === undefined) return;
  const isRunning = instance.status === "running";
  if (kind === "ended-well" && isRunning) Object.assign(instance, { status: "exited", exitCode: 0, health: "none" });
  if (kind === "crashed" && isRunning) {
    Object.assign(instance, { status: "exited", exitCode: 1, health: "none", restartAfterMs: 5 });
  }
  if (kind === "unhealthy" && isRunning && instance.section?.health !== undefined) instance.health = "unhealthy";
  if (kind === "frozen" && isRunning) instance.status = "frozen";
  if (kind === "asked" && isRunning) instance.restartAsked = true;
  const isGuest = instance.section !== undefined && instance.section.kind !== "container";
  if (kind === "saved" && isRunning && isGuest) Object.assign(instance, { status: "suspended", health: "none" });
  if (kind === "revert-asked" && instance.section?.kind === "vm") instance.revertAsked = "before";
  if (kind === "detached") instance.attached = false;
  if (kind === "broken") instance.intact = false;
  if (kind === "forgotten") delete instance.section;
  if (kind === "rebooted" && isUp(instance))
    Object.assign(instance, { status: "created", attached: false, health: "none" });
}

/** Some history: generations applied one upon the other, each cut off anywhere, with accidents between. */
const anyHistory = fc.array(
  fc.record({
    generation: anyGeneration,
    done: fc.nat(40),
    choices: fc.array(fc.nat(100), { maxLength: 12 }),
    faults: fc.array(anyFault, { maxLength: 3 }),
  }),
  { maxLength: 3 },
);
type History = typeof anyHistory extends fc.Arbitrary<infer Value> ? Value : never;

/** Volumes that would have to shrink are refused, which is not what these properties are about. */
function live(history: History): World {
  const world = new World();
  for (const { generation, done, choices, faults } of history) {
    const desired = withoutSizes(expand(generation, nobody));
    forgive(world, desired);
    perform(world, desired, plan(desired, world.observe(), keepVolumes), picker(choices), done);
    for (const fault of faults) inflict(world, fault);
  }
  return world;
}

/** One that failed and may not be started again blocks what needs it, on purpose: that has a test of its own. */
function forgive(world: World, desired: Desired): void {
  for (const { id, section } of desired.instances) {
    const instance = world.instances.get(id);
    if (instance?.status === "exited" && section.restart === "never") instance.exitCode = 0;
  }
}

function withoutSizes(desired: Desired): Desired {
  return { ...desired, volumes: desired.volumes.map((volume) => ({ ...volume, section: { protect: false } })) };
}

function isThere(world: World, desired: Desired): void {
  const ids = desired.instances.map((instance) => instance.id);
  assert.deepEqual([...world.instances.keys()].toSorted(compare), ids.toSorted(compare));
  assert.deepEqual(
    [...world.networks.keys()].toSorted(compare),
    desired.networks.map(({ id }) => id as string).toSorted(compare),
  );
  for (const { id } of desired.volumes) assert(world.volumes.has(id), id);
}

function compare(left: string, right: string): number {
  return left < right ? -1 : 1;
}

test("from whatever was left, the plan in any allowed order leads to what is desired, and planning again is empty", () => {
  fc.assert(
    fc.property(anyHistory, anyGeneration, fc.array(fc.nat(100), { maxLength: 20 }), (history, generation, choices) => {
      const world = live(history);
      const desired = withoutSizes(expand(generation, nobody));
      forgive(world, desired);
      converge(world, desired, picker(choices));
      isThere(world, desired);
      assert.deepEqual(plan(desired, world.observe(), keepVolumes), { steps: [], refusals: [] });
    }),
    rounds,
  );
});

test("a plan cut off anywhere and made again still leads there", () => {
  fc.assert(
    fc.property(
      anyHistory,
      anyGeneration,
      fc.array(fc.nat(6), { minLength: 1, maxLength: 30 }),
      (history, generation, cuts) => {
        const world = live(history);
        const desired = withoutSizes(expand(generation, nobody));
        forgive(world, desired);
        for (const cut of cuts) {
          perform(world, desired, plan(desired, world.observe(), keepVolumes), picker(cuts), cut);
        }
        converge(world, desired, picker(cuts));
        isThere(world, desired);
        assert.deepEqual(plan(desired, world.observe(), keepVolumes).steps, []);
      },
    ),
    rounds,
  );
});

test("what is stopped or suspended rests, whatever it was, and all else runs", () => {
  const some = fc.subarray(["a", "b", "c", "d", "a.1", "b.2", "c.1"]);
  fc.assert(
    fc.property(
      anyHistory,
      anyGeneration,
      some,
      some,
      fc.array(fc.nat(100)),
      (history, generation, off, saved, order) => {
        const world = live(history);
        // A circle of what one generation needed and the next one needs in turn is another test's.
        const desired = withoutSizes(expand(generation, new Set(off), new Set(saved)));
        forgive(world, desired);
        for (let turn = 0; turn < 3; turn += 1) {
          perform(world, desired, plan(desired, world.observe(), keepVolumes), picker(order), Infinity);
        }
        assert.deepEqual(plan(desired, world.observe(), keepVolumes).steps, []);
        for (const { id, running, suspended, section } of desired.instances) {
          const there = world.instances.get(id);
          assert(there !== undefined, id);
          if (!running) assert(!isUp(there), id);
          if (there.status === "suspended") assert(suspended === true, `${id} has a memory that nobody asked for`);
          if (running && there.status !== "frozen" && section.restart === "always")
            assert.equal(there.status, "running", id);
        }
      },
    ),
    rounds,
  );
});

test("down removes everything but volumes, and those too when asked", () => {
  fc.assert(
    fc.property(
      anyHistory,
      fc.boolean(),
      fc.array(fc.nat(100), { maxLength: 20 }),
      (history, removeVolumes, choices) => {
        const world = live(history);
        const volumes = world.volumes.size;
        const desired = nothing;
        perform(world, desired, plan(desired, world.observe(), { removeVolumes }), picker(choices), Infinity);
        assert.equal(world.instances.size, 0);
        assert.equal(world.networks.size, 0);
        assert.equal(world.volumes.size, removeVolumes ? 0 : volumes);
      },
    ),
    rounds,
  );
});

test("no step touches what did not change", () => {
  fc.assert(
    fc.property(anyGeneration, anyGeneration, (older, newer) => {
      if (shrinks(older, newer)) return;
      const world = settled(older);
      const desired = expand(newer, nobody);
      const steps = plan(desired, world.observe(), keepVolumes).steps;
      const touched = new Set(steps.flatMap(({ action }) => ("instance" in action ? [action.instance] : [])));
      for (const instance of desired.instances) {
        const was = world.instances.get(instance.id)?.section;
        if (was === undefined) continue;
        const own = { ...was, replicas: instance.section.replicas, update: instance.section.update };
        assert.equal(touched.has(instance.id), !same(own, instance.section), instance.id);
      }
    }),
    rounds,
  );
});

test("with start-first there are never fewer that work than both generations want", () => {
  const choices = fc.array(fc.nat(100), { maxLength: 20 });
  fc.assert(
    fc.property(anyGeneration, anyGeneration, choices, fc.nat(12), (older, newer, order, cut) => {
      if (shrinks(older, newer) || movesNetwork(older, newer)) return;
      const world = settled(older);
      const desired = expand(newer, nobody);
      const least = new Map<string, number>();
      for (const [name, section] of Object.entries(newer.spec.instances)) {
        const was = older.spec.instances[name];
        if (was === undefined || section.update.order !== "start-first") continue;
        // A check that is added or changed in place has to answer first.
        if (was.health === undefined && section.health !== undefined) continue;
        // What changes only while it is off is told as a restart, and costs one.
        if (section.kind !== "container" && was.kind === section.kind) continue;
        least.set(name, Math.min(was.replicas, section.replicas));
      }
      const watch = (): void => {
        for (const [name, count] of least) assert(world.healthyCount(name) >= count, `${name}: fewer than ${count}`);
      };
      perform(world, desired, plan(desired, world.observe(), keepVolumes), picker(order), cut, watch);
      perform(world, desired, plan(desired, world.observe(), keepVolumes), picker(order), Infinity, watch);
    }),
    rounds,
  );
});

function movesNetwork(older: Generation, newer: Generation): boolean {
  return Object.entries(newer.spec.networks).some(([name, { subnet }]) => {
    return subnet !== undefined && subnet !== (older.spec.networks[name]?.subnet ?? "10.250.0.0/24");
  });
}

test("with stop-first one replica at a time is replaced, also when the plan is cut off and made again", () => {
  fc.assert(
    fc.property(anyGeneration, fc.array(fc.nat(100), { maxLength: 20 }), fc.nat(30), (older, order, cut) => {
      const changed = structuredClone(older) as Mutable<Generation>;
      for (const section of Object.values(changed.spec.instances)) Object.assign(section, { image: "app:3" });
      changed.images = { "app:3": sha256("app:3") };
      const world = settled(older);
      const desired = expand(changed, nobody);
      const watch = (): void => {
        for (const [name, section] of Object.entries(changed.spec.instances)) {
          if (section.replicas > 0) assert(world.healthyCount(name) >= section.replicas - 1, name);
        }
      };
      perform(world, desired, plan(desired, world.observe(), keepVolumes), picker(order), cut, watch);
      perform(world, desired, plan(desired, world.observe(), keepVolumes), picker(order), Infinity, watch);
      isThere(world, desired);
    }),
    rounds,
  );
});
type Mutable<Type> = { -readonly [Member in keyof Type]: Type[Member] };

test("what is needed ends after what needs it", () => {
  fc.assert(
    fc.property(anyGeneration, fc.array(fc.nat(100), { maxLength: 20 }), (generation, choices) => {
      const world = settled(generation);
      const isUpNow = (name: string): boolean =>
        [...world.instances.values()].some((instance) => isUp(instance) && parseInstanceId(instance.id)?.name === name);
      const check = (steps: Plan, desired: Desired): void =>
        perform(world, desired, steps, picker(choices), Infinity, ({ action }) => {
          if (action.kind !== "stop-instance") return;
          const stopped = parseInstanceId(action.instance)?.name ?? "";
          for (const [name, { needs }] of Object.entries(generation.spec.instances)) {
            if (needs.includes(stopped)) assert(!isUpNow(name), `${stopped} stopped before ${name}`);
          }
        });
      const halted = expand(generation, new Set(Object.keys(generation.spec.instances)));
      check(plan(halted, world.observe(), keepVolumes), halted);
      converge(world, expand(generation, nobody));
      check(plan(nothing, world.observe(), keepVolumes), nothing);
    }),
    rounds,
  );
});

test("protected instances and volumes are never removed, and the plan says so", () => {
  fc.assert(
    fc.property(
      anyGeneration,
      anyGeneration,
      fc.subarray(["a", "b", "v"]),
      fc.boolean(),
      (older, newer, guarded, down) => {
        const before = structuredClone(older);
        for (const name of guarded) {
          Object.assign(before.spec.instances[name] ?? {}, { protect: true });
          Object.assign(before.spec.volumes[name] ?? {}, { protect: true });
        }
        const world = settled(before);
        const desired = down ? nothing : expand(newer, nobody);
        const { steps, refusals } = plan(desired, world.observe(), { removeVolumes: true });
        for (const name of guarded) {
          const lost =
            [...world.instances.keys()].some((id) => parseInstanceId(id)?.name === name) &&
            !desired.instances.some((instance) => instance.name === name);
          const lostVolume =
            world.volumes.has(`shop.${name}`) && !desired.volumes.some((volume) => volume.name === name);
          const removes = steps.some(
            ({ action }) =>
              (action.kind === "remove-instance" && lost && parseInstanceId(action.instance)?.name === name) ||
              (action.kind === "remove-volume" && action.volume === `shop.${name}`),
          );
          assert(!removes, name);
          if (lost)
            assert(
              refusals.some((refusal) => new RegExp(`^(container|microvm|vm) ${name}$`).test(refusal.subject)),
              name,
            );
          if (lostVolume)
            assert(
              refusals.some((refusal) => refusal.subject === `volume ${name}`),
              name,
            );
        }
      },
    ),
    rounds,
  );
});
