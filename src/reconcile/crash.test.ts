import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";

import { isFault } from "../base/fault.ts";
import { parseInstanceId } from "../base/id.ts";
import type { Operation } from "../operation/contract.ts";
import type { StackSpec } from "../stack/model.ts";
import type { InstanceRecord, StackRecord } from "./record.ts";
import { check, machine, runOf, stackOf, World, type Daemon, type Mishap } from "./world.fixture.ts";

/**
 * Rule 2 of the architecture: whatever call to a driver a daemon dies at, the next one finds its way from what is there.
 * Every verb is cut off at every call it makes, before and after the call took effect; then random sequences of them.
 */

const volumes = { data: { protect: false } };
const mounts = [{ kind: "volume", volume: "data", destination: "/data", readOnly: false }] as const;
/** `steady` is the same in all of them: nothing that happens may touch it while the stack is up. */
const variants: readonly StackSpec[] = [
  stackOf({ steady: {}, db: { health: check, mounts }, web: { replicas: 2, needs: ["db"] } }, { volumes }),
  stackOf(
    { steady: {}, db: { health: check, mounts }, web: { replicas: 3, needs: ["db"], image: "app:2" } },
    { volumes },
  ),
  stackOf(
    {
      steady: {},
      web: { update: { order: "start-first", healthyWithinMs: 5000 }, image: "app:3", networks: ["back"] },
    },
    { volumes, networks: { default: { internal: false }, back: { internal: true } } },
  ),
];

/** Guests, and the same changed: in place, by a restart, and by another kind. */
const guests: readonly StackSpec[] = [
  stackOf(
    {
      steady: {},
      guest: { kind: "microvm", health: check, mounts },
      files: machine(),
      web: { kind: "microvm", needs: ["files"] },
    },
    { volumes },
  ),
  stackOf(
    {
      steady: {},
      guest: { health: check, mounts },
      files: machine({
        tpm: true,
        disks: [
          { name: "root", from: { kind: "image", image: "debian.qcow2" } },
          { name: "data", from: { kind: "blank" }, sizeBytes: 2 ** 20 },
        ],
      }),
      web: { kind: "microvm", needs: ["files"], memoryBytes: 2 ** 26 },
    },
    { volumes },
  ),
];
const all = [...variants, ...guests];

type Verb =
  | { readonly kind: "up"; readonly variant: number }
  | { readonly kind: "rollback" }
  | { readonly kind: "down"; readonly volumes: boolean }
  | { readonly kind: "stop" | "start" | "restart" | "suspend"; readonly name: string }
  | { readonly kind: "snapshot" | "revert"; readonly memory: boolean }
  | { readonly kind: "run"; readonly remove: boolean };

/** Begins a verb and gives it time. Whether it was acknowledged. */
async function perform(daemon: Daemon, verb: Verb): Promise<boolean> {
  try {
    const work = begin(daemon, verb);
    let answer: { readonly done: boolean; readonly operation?: Operation } = { done: false };
    let refusal: unknown;
    work.then(
      (operation) => (answer = { done: true, ...(operation === undefined ? {} : { operation }) }),
      (thrown: unknown) => {
        answer = { done: true };
        refusal = thrown;
      },
    );
    for (let turn = 0; turn < 50 && !daemon.dead; turn += 1) {
      await daemon.pass(turn === 0 ? 0 : 100);
      if (!answer.done) continue;
      if (refusal !== undefined) throw refusal;
      if (answer.operation === undefined) return true;
      const { status } = await daemon.operations.get(answer.operation.id);
      if (status !== "running") return status === "succeeded";
    }
    return false;
  } catch (thrown) {
    // Refusals are answers; anything that is no Fault is a defect.
    if (isFault(thrown) && thrown.reason !== "bug") return false;
    throw thrown;
  }
}

async function begin(daemon: Daemon, verb: Verb): Promise<Operation | undefined> {
  const { stacks, instances, machines, world } = daemon;
  if (verb.kind === "up") {
    const spec = all[verb.variant] ?? stackOf({});
    const options = { pruneVolumes: false, pull: false, build: false, author: "", message: "" };
    return await stacks.apply({ spec, files: {}, secrets: new Map() }, options, world.call);
  }
  if (verb.kind === "rollback") return await stacks.rollback("shop", undefined, "", world.call);
  if (verb.kind === "down") return await stacks.remove("shop", { volumes: verb.volumes }, world.call);
  if (verb.kind === "run") {
    const request = runOf({ name: "once", remove: verb.remove, command: ["exit", "0"] });
    await instances.run(request, world.call);
    return undefined;
  }
  const { id } = instances.find(`shop/${"name" in verb ? verb.name : "files-1"}`);
  if (verb.kind === "snapshot") {
    await machines.snapshot(id, { name: "before", memory: verb.memory }, world.call);
    return undefined;
  }
  if (verb.kind === "revert") {
    await machines.revert(id, "before", world.call);
    return undefined;
  }
  if (verb.kind === "suspend") {
    await instances.suspend(id, world.call);
    return undefined;
  }
  if (verb.kind === "start") await instances.start(id, world.call);
  else await instances[verb.kind](id, undefined, world.call);
  return undefined;
}

/** A later daemon has had its time: what is there is what the store says should be there, and nothing else. */
async function assertConverged(world: World, daemon: Daemon): Promise<void> {
  const remains = await world.remains();
  const wanted = [...daemon.reconciler.loops()].flatMap((loop) => loop.state.desired().instances);
  const ids = wanted.map(({ id }) => id).sort();
  assert.deepEqual(remains["instances"], ids, "instances");
  const programs = wanted.filter(({ section }) => section.kind !== "vm").map(({ id }) => id);
  assert.deepEqual(remains["roots"], programs.sort(), "roots");
  for (const { id, section } of wanted) {
    for (const { name } of section.disks ?? []) assert.ok(remains["disks"]?.includes(`${id}/${name}`), `${id}/${name}`);
  }
  assert.deepEqual(remains["ports"], ids, "ports");
  assert.deepEqual(remains["records"], ids, "records");
  assert.deepEqual(remains["leases"], ids, "leases");
  const networks = [...daemon.reconciler.loops()].flatMap((loop) => loop.state.desired().networks.map(({ id }) => id));
  assert.deepEqual(remains["networks"], networks.sort(), "networks");
  assert.deepEqual(remains["pages"], networks.sort(), "pages");
  for (const { id, running, section } of wanted) {
    if (section.restart === "always") assert.equal(world.running().has(id), running, `${id} running`);
  }
  const up = [...world.running().keys()];
  const addresses = up.flatMap((id) => world.host.ports.get(id)?.nics.map(({ address }) => address) ?? []);
  assert.deepEqual(remains["names"], addresses.sort(), "names lead to what runs");
  assert.equal(new Set(addresses).size, addresses.length, "no address twice");
  for (const loop of daemon.reconciler.loops()) {
    if (loop.erased) continue;
    assert.equal(loop.failure()?.message, undefined);
    assert.equal(loop.calm, true, `${loop.state.name} is calm`);
    assert.ok(["live", "down", "failed"].includes(loop.state.record?.status ?? "none"), `${loop.state.record?.status}`);
  }
  const records = await world.store.list<InstanceRecord>("instance/", world.call);
  for (const { value } of records) assert.ok(value.createdMs > 0);
}

async function specOfCurrent(world: World): Promise<unknown> {
  const entry = await world.store.get<StackRecord>("stack/shop", world.call);
  if (entry === undefined || entry.value.status === "down" || entry.value.status === "removing") return undefined;
  const key = `generation/shop/${String(entry.value.current).padStart(8, "0")}`;
  return (await world.store.get<{ generation: { spec: StackSpec } }>(key, world.call))?.value.generation.spec;
}

interface Calls {
  /** How many calls the daemon's start makes, and how many there are when the verb is done. */
  readonly boot: number;
  readonly all: number;
}

/** After `before` is done without mishap, `verb` meets one; then a daemon without. */
async function cutOff(before: readonly Verb[], verb: Verb, mishap: Mishap | undefined): Promise<Calls> {
  const world = new World();
  const first = await world.boot();
  for (const done of before) assert.ok(await perform(first, done), `${done.kind} goes well`);
  first.kill();
  const steady = [...world.running()].find(([id]) => parseInstanceId(id)?.name === "steady");
  const specBefore = await specOfCurrent(world);

  const second = await world.boot(mishap);
  const boot = second.calls;
  const acknowledged = await perform(second, verb);
  const calls = { boot, all: second.calls };
  const specNow = await specOfCurrent(world);
  if (mishap?.kind !== "fail") second.kill();
  const third = mishap?.kind === "fail" ? second : await world.boot();
  await third.pass(0);
  for (let turn = 0; turn < 7; turn += 1) await third.pass(turn < 4 ? 1000 : 15_000);
  await assertConverged(world, third);
  const spec = await specOfCurrent(world);
  if (verb.kind === "up" && acknowledged) assert.deepEqual(spec, all[verb.variant], "an acknowledged apply is kept");
  if (verb.kind === "down" && acknowledged) assert.equal(spec, undefined, "an acknowledged removal is kept");
  // Good generations pass their gate: what the pointer said when the daemon died is what comes.
  if (acknowledged || mishap?.kind === "crash") assert.deepEqual(spec, specNow, "the pointer stays where it was");
  if (spec !== undefined && specBefore !== undefined) {
    const now = [...world.running()].find(([id]) => parseInstanceId(id)?.name === "steady");
    if (steady !== undefined && verb.kind !== "down")
      assert.deepEqual(now, steady, "what need not change is not touched");
  }
  third.kill();
  return calls;
}

const up0: Verb = { kind: "up", variant: 0 };
const scenes: Readonly<Record<string, readonly [readonly Verb[], Verb]>> = {
  "the first up": [[], up0],
  "an update": [[up0], { kind: "up", variant: 1 }],
  "an update onto another network": [[up0], { kind: "up", variant: 2 }],
  "an up that changes nothing": [[up0], up0],
  "a rollback": [[up0, { kind: "up", variant: 1 }], { kind: "rollback" }],
  "a removal": [[up0], { kind: "down", volumes: false }],
  "a removal with volumes": [[up0, { kind: "up", variant: 1 }], { kind: "down", volumes: true }],
  "an up after a removal": [[up0, { kind: "down", volumes: false }], up0],
  "a stop": [[up0], { kind: "stop", name: "web-1" }],
  "a start": [[up0, { kind: "stop", name: "web-1" }], { kind: "start", name: "web-1" }],
  "a restart": [[up0], { kind: "restart", name: "web-2" }],
  "an up of guests": [[], { kind: "up", variant: 3 }],
  "an update of guests": [[{ kind: "up", variant: 3 }], { kind: "up", variant: 4 }],
  "a removal of guests with their disks": [[{ kind: "up", variant: 4 }], { kind: "down", volumes: true }],
  "a suspension": [[{ kind: "up", variant: 3 }], { kind: "suspend", name: "files-1" }],
  "a resumption": [
    [
      { kind: "up", variant: 3 },
      { kind: "suspend", name: "guest-1" },
    ],
    { kind: "start", name: "guest-1" },
  ],
  "going back to disks": [
    [
      { kind: "up", variant: 3 },
      { kind: "snapshot", memory: false },
    ],
    { kind: "revert", memory: false },
  ],
  "going back to disks and memory": [
    [
      { kind: "up", variant: 3 },
      { kind: "snapshot", memory: true },
    ],
    { kind: "revert", memory: true },
  ],
  "a run": [[], { kind: "run", remove: false }],
  "a run that removes itself": [[], { kind: "run", remove: true }],
};

/** `npm test` tries every call, and `npm run check` every third. */
const stride = process.env["CROFT_TEST_WHOLE"] === undefined ? 3 : 1;

for (const [name, [before, verb]] of Object.entries(scenes)) {
  test(`${name} survives a mishap at each of its calls`, async () => {
    const { boot, all } = await cutOff(before, verb, undefined);
    for (const kind of ["crash", "fail"] as const) {
      for (const when of ["before", "after"] as const) {
        // A start that fails is told to whoever started the daemon; dying meanwhile is not.
        for (let at = kind === "fail" ? boot + 1 : 1; at <= all; at += stride) {
          try {
            await cutOff(before, verb, { at, kind, when });
          } catch (thrown) {
            throw new Error(`${kind} ${when} call ${at} of ${all}`, { cause: thrown });
          }
        }
      }
    }
  });
}

/** Lives that were found to end otherwise once: by the verbs of each daemon, and what befell it. */
const found: Readonly<Record<string, readonly (readonly [readonly Verb[], Mishap])[]>> = {
  "addresses of a network that is gone are not written again by whoever tidies up": [
    [[{ kind: "up", variant: 1 }], { at: 1, kind: "fail", when: "before" }],
    [
      [
        { kind: "run", remove: false },
        { kind: "down", volumes: true },
      ],
      { at: 55, kind: "crash", when: "before" },
    ],
    [[{ kind: "rollback" }], { at: 1, kind: "fail", when: "after" }],
  ],
};

for (const [name, lives] of Object.entries(found)) {
  test(name, async () => {
    const world = new World();
    for (const [verbs, mishap] of lives) {
      const daemon = await world.boot(mishap).catch(async () => await world.boot());
      for (const verb of verbs) await perform(daemon, verb);
      daemon.kill();
    }
    const last = await world.boot();
    await last.pass(30_000);
    await last.pass(60_000);
    await assertConverged(world, last);
    last.kill();
  });
}

const anyVerb: fc.Arbitrary<Verb> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("up" as const), variant: fc.nat(4) }) },
  fc.record({ kind: fc.constant("rollback" as const) }),
  fc.record({ kind: fc.constant("down" as const), volumes: fc.boolean() }),
  fc.record({ kind: fc.constantFrom("stop", "start", "restart"), name: fc.constantFrom("web-1", "web-2", "db-1") }),
  fc.record({ kind: fc.constant("suspend" as const), name: fc.constantFrom("web-1", "files-1") }),
  fc.record({ kind: fc.constantFrom("snapshot" as const, "revert" as const), memory: fc.boolean() }),
  fc.record({ kind: fc.constant("run" as const), remove: fc.boolean() }),
);
const anyLife = fc.record({
  verbs: fc.array(anyVerb, { minLength: 1, maxLength: 4 }),
  mishap: fc.record({
    at: fc.integer({ min: 1, max: 120 }),
    kind: fc.constantFrom("crash", "fail"),
    when: fc.constantFrom("before", "after"),
  }),
});

test("any verbs by any number of daemons that die at any call end in what the store says", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyLife, { minLength: 1, maxLength: 5 }), async (lives) => {
      const world = new World();
      let acknowledged: StackSpec | "gone" | undefined;
      for (const { verbs, mishap } of lives) {
        // A daemon whose start fails is started again; here with better luck.
        const boot = async (): Promise<Daemon> => await world.boot(mishap).catch(async () => await world.boot());
        const daemon = await boot();
        for (const verb of verbs) {
          const isDone = await perform(daemon, verb);
          const moves = verb.kind === "up" || verb.kind === "down" || verb.kind === "rollback";
          // A verb that was not acknowledged may have come through all the same.
          if (moves) acknowledged = undefined;
          if (isDone && verb.kind === "up") acknowledged = all[verb.variant];
          if (isDone && verb.kind === "down") acknowledged = "gone";
        }
        daemon.kill();
        const spec = await specOfCurrent(world);
        if (acknowledged === "gone") assert.equal(spec, undefined);
        else if (acknowledged !== undefined) assert.deepEqual(spec, acknowledged);
      }
      const last = await world.boot();
      await last.pass(30_000);
      await last.pass(60_000);
      await assertConverged(world, last);
      const settled = world.running();
      await last.pass(60_000);
      last.kill();
      const other = await world.boot();
      await other.pass(60_000);
      assert.deepEqual(world.running(), settled, "what is as it should be is left alone");
      other.kill();
    }),
    { numRuns: Number(process.env["CROFT_CRASH_RUNS"] ?? 40) },
  );
});
