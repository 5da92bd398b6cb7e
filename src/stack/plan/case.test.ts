import assert from "node:assert/strict";
import { test } from "node:test";
import { parseInstanceId, sha256 } from "../../base/id.ts";
import type { Generation, InstanceSection } from "../model.ts";
import { expand } from "./expand.ts";
import { plan } from "./plan.ts";
import { generationOf, nothing } from "./stack.fixture.ts";
import type { Desired, Observed, ObservedInstance, Plan, PlanOptions } from "./step.ts";
import { perform, World } from "./world.fixture.ts";

const keepVolumes = { removeVolumes: false };
const check: InstanceSection["health"] = {
  check: { kind: "tcp", port: 80 },
  intervalMs: 1,
  timeoutMs: 1,
  retries: 1,
  startPeriodMs: 0,
};

function desire(generation: Generation, ...stopped: readonly string[]): Desired {
  return expand(generation, new Set(stopped));
}

/** A host on which the generation is as it should be. */
function settle(generation: Generation): World {
  const world = new World();
  const desired = desire(generation);
  perform(world, desired, plan(desired, world.observe(), keepVolumes), () => 0, Infinity);
  return world;
}

/** `kind name-ordinal < what it waits for: why`, without the hash of ids; old instances are marked with a quote. */
function told(desired: Desired, observed: Observed, options: PlanOptions = keepVolumes): string[] {
  return tellPlan(desired, plan(desired, observed, options));
}

function tellPlan(desired: Desired, { steps }: Plan): string[] {
  const ids = new Set<string>(desired.instances.map(({ id }) => id));
  const short = (key: string): string => {
    const [kind = "", subject = ""] = key.split(" ");
    const parts = parseInstanceId(subject);
    if (parts === undefined) return `${kind.split("-")[0]} ${subject.replace("shop.", "")}`;
    return `${kind.split("-")[0]} ${parts.name}-${parts.ordinal}${ids.has(subject) ? "" : "'"}`;
  };
  return steps.map(({ key, cost, why, after, notBeforeMs }) => {
    const waits = after.length === 0 ? "" : ` < ${after.map(short).join(", ")}`;
    return `${short(key)}${waits} (${cost}) ${why}${notBeforeMs === undefined ? "" : ` not before ${notBeforeMs}`}`;
  });
}

function change(world: World, name: string, values: Partial<ObservedInstance>): void {
  for (const instance of world.instances.values()) {
    const parts = parseInstanceId(instance.id);
    if (`${parts?.name}-${parts?.ordinal}` === name) Object.assign(instance, values);
  }
}

test("a first up makes networks, then what is needed, then what needs it", () => {
  const generation = generationOf({ web: { needs: ["db"] }, db: { health: check } });
  assert.deepEqual(told(desire(generation), new World().observe()), [
    "create default (none) not there yet",
    "create db-1 < create default (none) not there yet",
    "start db-1 < create db-1 (none) not there yet",
    "await db-1 < start db-1 (none) within 1m",
    "create web-1 < await db-1, create default (none) not there yet",
    "start web-1 < create web-1 (none) not there yet",
  ]);
});

test("a changed image says what it was, and replaces one replica after the other", () => {
  const older = generationOf({ web: { replicas: 2, health: check } });
  const newer = generationOf({ web: { replicas: 2, health: check, image: "app:2" } });
  assert.deepEqual(told(desire(newer), settle(older).observe()), [
    "stop web-1' (recreate) image app:1 → app:2",
    "remove web-1' < stop web-1' (recreate) image app:1 → app:2",
    "create web-1 < remove web-1' (recreate) image app:1 → app:2",
    "start web-1 < create web-1 (recreate) image app:1 → app:2",
    "await web-1 < start web-1 (none) within 1m",
    "stop web-2' < await web-1 (recreate) image app:1 → app:2",
    "remove web-2' < stop web-2' (recreate) image app:1 → app:2",
    "create web-2 < await web-1, remove web-2' (recreate) image app:1 → app:2",
    "start web-2 < create web-2 (recreate) image app:1 → app:2",
    "await web-2 < start web-2 (none) within 1m",
  ]);
});

test("start-first keeps the old instance until the new one is healthy, also after an interruption", () => {
  const parts: Partial<InstanceSection> = { health: check, update: { order: "start-first", healthyWithinMs: 500 } };
  const world = settle(generationOf({ web: parts }));
  const desired = desire(generationOf({ web: { ...parts, image: "app:2" } }));
  const first = plan(desired, world.observe(), keepVolumes);
  assert.deepEqual(tellPlan(desired, first), [
    "create web-1 (recreate) image app:1 → app:2",
    "start web-1 < create web-1 (recreate) image app:1 → app:2",
    "await web-1 < start web-1 (none) within 500ms",
    "stop web-1' < await web-1 (recreate) image app:1 → app:2",
    "remove web-1' < stop web-1' (recreate) image app:1 → app:2",
  ]);
  perform(world, desired, first, () => 0, 2);
  assert.deepEqual(told(desired, world.observe()), [
    "await web-1 (none) within 500ms",
    "stop web-1' < await web-1 (recreate) its replacement is there",
    "remove web-1' < stop web-1' (recreate) its replacement is there",
  ]);
});

test("going back in the middle of a start-first update removes the new instance and leaves the old one alone", () => {
  const parts: Partial<InstanceSection> = { health: check, update: { order: "start-first", healthyWithinMs: 500 } };
  const older = generationOf({ web: parts });
  const world = settle(older);
  const newer = desire(generationOf({ web: { ...parts, image: "app:2" } }));
  perform(world, newer, plan(newer, world.observe(), keepVolumes), () => 0, 2);
  assert.deepEqual(told(desire(older), world.observe()), [
    "stop web-1' (recreate) its replacement is there",
    "remove web-1' < stop web-1' (recreate) its replacement is there",
  ]);
});

test("a replica that does not work is replaced first", () => {
  const older = generationOf({ web: { replicas: 2, health: check } });
  const world = settle(older);
  change(world, "web-2", { health: "unhealthy" });
  const steps = told(desire(generationOf({ web: { replicas: 2, health: check, image: "app:2" } })), world.observe());
  assert.match(steps[0] ?? "", /^stop web-2'/);
});

test("fewer replicas with start-first go when those that stay are healthy, with stop-first at once", () => {
  for (const [order, waits] of [
    ["start-first", " < await web-1"],
    ["stop-first", ""],
  ] as const) {
    const update = { order, healthyWithinMs: 1 } as const;
    const world = settle(generationOf({ web: { replicas: 2, health: check, update } }));
    change(world, "web-1", { health: "starting" });
    assert.deepEqual(told(desire(generationOf({ web: { health: check, update } })), world.observe()), [
      "await web-1 (none) within 1ms",
      `stop web-2'${waits} (none) fewer replicas`,
      "remove web-2' < stop web-2' (none) fewer replicas",
    ]);
  }
});

test("what changes in place is told field by field, and touches nothing else", () => {
  const older = generationOf({ web: { memoryBytes: 2 ** 26, labels: { a: "1" } }, db: {} });
  const publish = [{ hostAddress: "0.0.0.0", hostPort: 8080, port: 80, protocol: "tcp" }] as const;
  const newer = generationOf({ web: { memoryBytes: 2 ** 27, publish, labels: {}, replicas: 1 }, db: {} });
  const steps = plan(desire(newer), settle(older).observe(), keepVolumes).steps;
  assert.equal(steps.length, 1);
  assert.deepEqual(steps[0]?.action.kind === "update-instance" && steps[0].action.fields, [
    "publish",
    "memoryBytes",
    "labels",
  ]);
  assert.equal(steps[0]?.cost, "hot");
  assert.equal(steps[0]?.why, "publish 0.0.0.0:8080/tcp added (port 80), label a removed (1), memory 64 MiB → 128 MiB");
});

test("the name of an image may change while its bytes stay", () => {
  const older = generationOf({ web: { image: "app:1" } });
  const newer = generationOf({ web: { image: "app:1.0" } });
  const same = { ...newer, images: { "app:1.0": sha256("app:1") } };
  assert.deepEqual(told(desire(same), settle(older).observe()), ["update web-1 (hot) image app:1 → app:1.0"]);
});

test("a moved tag, a changed file and a new secret version are named where they are known", () => {
  const mounts = [{ kind: "file", path: "a.conf", destination: "/a" }] as const;
  const older = {
    ...generationOf({ web: { mounts, env: { A: { secret: "s" } } } }),
    files: { "a.conf": sha256("1") },
    secrets: { s: "1" },
  };
  const newer = {
    ...older,
    files: { "a.conf": sha256("2") },
    secrets: { s: "2" },
    images: { "app:1": sha256("moved") },
  };
  const world = settle(older);
  const { image, secrets, files } = desire(older).instances[0] ?? {};
  assert.match(told(desire(newer), world.observe())[0] ?? "", /its image, a file, a secret or a network changed/);
  change(world, "web-1", {
    ...(image === undefined ? {} : { image }),
    ...(secrets === undefined ? {} : { secrets }),
    ...(files === undefined ? {} : { files }),
  });
  assert.match(
    told(desire(newer), world.observe())[0] ?? "",
    /^stop web-1' \(recreate\) image app:1 [0-9a-f]{12} → [0-9a-f]{12}, value of secret s changed, content of a.conf changed$/,
  );
});

function afterEnding(restart: InstanceSection["restart"], exitCode: number | undefined): string[] {
  const generation = generationOf({ job: { restart } });
  const world = settle(generation);
  change(world, "job-1", {
    status: "exited",
    health: "none",
    restartAfterMs: 99,
    ...(exitCode === undefined ? {} : { exitCode }),
  });
  return told(desire(generation), world.observe());
}

test("one that ended is started again as its policy says, not before its pause is over", () => {
  assert.deepEqual(afterEnding("always", 0), ["start job-1 (restart) exited with code 0 not before 99"]);
  assert.deepEqual(afterEnding("on-failure", 1), ["start job-1 (restart) exited with code 1 not before 99"]);
  assert.deepEqual(afterEnding("on-failure", undefined), ["start job-1 (restart) exited not before 99"]);
  assert.deepEqual(afterEnding("on-failure", 0), []);
  assert.deepEqual(afterEnding("never", 1), []);
});

test("one whose check fails is started again, unless its policy is never", () => {
  const generation = generationOf({ web: { health: check }, once: { health: check, restart: "never" } });
  const world = settle(generation);
  change(world, "web-1", { health: "unhealthy", restartAfterMs: 7 });
  change(world, "once-1", { health: "unhealthy" });
  assert.deepEqual(told(desire(generation), world.observe()), [
    "stop web-1 (restart) its health check fails not before 7",
    "start web-1 < stop web-1 (restart) its health check fails",
    "await web-1 < start web-1 (none) within 1m",
    "await once-1 (none) within 1m",
  ]);
});

test("what needs one that failed for good waits for it, visibly", () => {
  const generation = generationOf({ migrate: { restart: "never" }, web: { needs: ["migrate"] } });
  const world = settle(generation);
  change(world, "migrate-1", { status: "exited", exitCode: 3 });
  assert.deepEqual(told(desire(generation), world.observe()), []);
  change(world, "web-1", { status: "created" });
  assert.deepEqual(told(desire(generation), world.observe()), [
    'await migrate-1 (none) exited with code 3, and restart = "never" leaves it so',
    "start web-1 < await migrate-1 (none) not running",
  ]);
  change(world, "migrate-1", { exitCode: 0 });
  assert.deepEqual(told(desire(generation), world.observe()), ["start web-1 (none) not running"]);
});

test("stopped by request is stopped and kept, one replica or all, dependents first", () => {
  const generation = generationOf({ db: { replicas: 2 }, web: { needs: ["db"] } });
  const observed = settle(generation).observe();
  assert.deepEqual(told(desire(generation, "db.2"), observed), ["stop db-2 (none) stopped by request"]);
  assert.deepEqual(told(desire(generation, "db", "web"), observed), [
    "stop db-1 < stop web-1 (none) stopped by request",
    "stop db-2 < stop web-1 (none) stopped by request",
    "stop web-1 (none) stopped by request",
  ]);
});

test("half-made is made again, detached is attached again, frozen stays frozen", () => {
  const generation = generationOf({ a: {}, b: {}, c: {}, d: {} });
  const world = settle(generation);
  change(world, "a-1", { intact: false });
  change(world, "b-1", { attached: false });
  change(world, "c-1", { status: "frozen" });
  change(world, "d-1", { attached: false, status: "created" });
  assert.deepEqual(told(desire(generation), world.observe()), [
    "stop a-1 (recreate) half-made or broken beyond repair",
    "remove a-1 < stop a-1 (recreate) half-made or broken beyond repair",
    "create a-1 < remove a-1 (recreate) half-made or broken beyond repair",
    "start a-1 < create a-1 (recreate) half-made or broken beyond repair",
    "stop b-1 (restart) its links or volumes are gone from the host",
    "repair b-1 < stop b-1 (restart) its links or volumes are gone from the host",
    "start b-1 < repair b-1 (restart) its links or volumes are gone from the host",
    "repair d-1 (none) its links or volumes are gone from the host",
    "start d-1 < repair d-1 (none) not running",
  ]);
});

test("a network that was deleted by hand is made again before its instances are attached to it", () => {
  const generation = generationOf({ a: {}, b: {} });
  const world = settle(generation);
  world.networks.clear();
  change(world, "a-1", { attached: false });
  change(world, "b-1", { attached: false, status: "exited", exitCode: 1 });
  const gone = "its links or volumes are gone from the host";
  assert.deepEqual(told(desire(generation), world.observe()), [
    "create default (none) not there yet",
    `stop a-1 (restart) ${gone}`,
    `repair a-1 < stop a-1, create default (restart) ${gone}`,
    `start a-1 < repair a-1 (restart) ${gone}`,
    `repair b-1 < create default (none) ${gone}`,
    "start b-1 < repair b-1, create default (restart) exited with code 1",
  ]);
});

test("a restart that was asked for goes from replica to replica, without a pause", () => {
  const generation = generationOf({ web: { replicas: 2, health: check, restart: "never" } });
  const world = settle(generation);
  for (const name of ["web-1", "web-2"]) change(world, name, { restartAsked: true, restartAfterMs: 9 });
  assert.deepEqual(told(desire(generation), world.observe()), [
    "stop web-1 (restart) a restart was asked for",
    "start web-1 < stop web-1 (restart) a restart was asked for",
    "await web-1 < start web-1 (none) within 1m",
    "stop web-2 < await web-1 (restart) a restart was asked for",
    "start web-2 < stop web-2 (restart) a restart was asked for",
    "await web-2 < start web-2 (none) within 1m",
  ]);
});

test("one left over from a start-first update ends before the new one starts when the order is now stop-first", () => {
  const startFirst: Partial<InstanceSection> = { update: { order: "start-first", healthyWithinMs: 1 } };
  const world = settle(generationOf({ web: startFirst }));
  const halfway = desire(generationOf({ web: { ...startFirst, image: "app:2" } }));
  perform(world, halfway, plan(halfway, world.observe(), keepVolumes), () => 0, 1);
  assert.deepEqual(told(desire(generationOf({ web: { image: "app:2" } })), world.observe()), [
    "stop web-1' (recreate) its replacement is there",
    "remove web-1' < stop web-1' (recreate) its replacement is there",
    "start web-1 < remove web-1' (none) not running",
  ]);
});

test("whoever needs a machine that goes back to a snapshot waits for the plan that knows what it came back as", () => {
  const db: Partial<InstanceSection> = { kind: "vm", disks: [{ name: "root", from: { kind: "blank" } }] };
  const world = settle(generationOf({ db }));
  change(world, "db-1", { revertAsked: "before" });
  const both = desire(generationOf({ db, web: { needs: ["db"] } }));
  const first = plan(both, world.observe(), keepVolumes);
  assert.deepEqual(tellPlan(both, first), [
    "revert db-1 (restart) going back to snapshot before",
    "await db-1 < revert db-1 (none) going back to snapshot before",
    "create web-1 < await db-1 (none) not there yet",
    "start web-1 < create web-1 (none) not there yet",
  ]);
  perform(world, both, first, () => 0, Infinity);
  assert.deepEqual(told(both, world.observe()), [
    "start db-1 (none) not running",
    "create web-1 < start db-1 (none) not there yet",
    "start web-1 < create web-1 (none) not there yet",
  ]);
});

test("a network that moves waits for every old instance on it, even with start-first", () => {
  const parts: Partial<InstanceSection> = { networks: ["back"], update: { order: "start-first", healthyWithinMs: 1 } };
  const on = (subnet: string): Generation =>
    generationOf({ web: parts }, { networks: { back: { subnet, internal: false } } });
  assert.deepEqual(told(desire(on("10.2.0.0/24")), settle(on("10.1.0.0/24")).observe()), [
    "update back < remove web-1' (hot) subnet 10.1.0.0/24 → 10.2.0.0/24",
    "stop web-1' (recreate) network back changed",
    "remove web-1' < stop web-1' (recreate) network back changed",
    "create web-1 < remove web-1', update back (recreate) network back changed",
    "start web-1 < create web-1 (recreate) network back changed",
  ]);
});

test("a broken machine leaves a network that moves before what it needs, which waits for the network", () => {
  const vm: Partial<InstanceSection> = { kind: "vm", disks: [{ name: "root", from: { kind: "blank" } }] };
  const world = settle(generationOf({ vm: { ...vm, networks: ["back"] } }, back("10.1.0.0/24")));
  change(world, "vm-1", { intact: false });
  const next = generationOf(
    { db: { networks: ["back"] }, vm: { ...vm, networks: [], needs: ["db"] } },
    back("10.2.0.0/24"),
  );
  assert.match(told(desire(next), world.observe()).join("\n"), /^stop vm-1 \(recreate\)/m);
  perform(world, desire(next), plan(desire(next), world.observe(), keepVolumes), () => 0, Infinity);
  assert.deepEqual(told(desire(next), world.observe()), []);
});

test("a replacement says all that it is for: a network beside what the section itself changed", () => {
  const web: Partial<InstanceSection> = { networks: ["back"] };
  const world = settle(generationOf({ web }, back("10.1.0.0/24")));
  const changed = desire(generationOf({ web: { ...web, labels: { team: "x" } } }, back("10.2.0.0/24")));
  assert.match(
    told(changed, world.observe()).join("\n"),
    /create web-1 .*network back changed, label team added \(x\)/,
  );
});

function back(subnet: string): Partial<Generation["spec"]> {
  return { networks: { back: { subnet, internal: false } } };
}

function withVolume(volume: { sizeBytes?: number; protect: boolean }): Generation {
  return generationOf({}, { volumes: { v: volume } });
}

test("volumes grow in place, do not shrink, and go only when asked and not protected", () => {
  const world = settle(withVolume({ sizeBytes: 2 ** 30, protect: true }));
  assert.deepEqual(told(desire(withVolume({ sizeBytes: 2 ** 31, protect: true })), world.observe()), [
    "resize v (hot) size 1 GiB → 2 GiB",
  ]);
  assert.deepEqual(told(desire(withVolume({ protect: true })), world.observe()), [], "a quota is not lifted");
  assert.deepEqual(plan(desire(withVolume({ sizeBytes: 2 ** 29, protect: true })), world.observe(), keepVolumes), {
    steps: [],
    refusals: [
      {
        subject: "volume v",
        why: "it cannot shrink from 1 GiB to 512 MiB",
        hint: "keep the larger size, or move the data to a new volume",
      },
    ],
  });
  assert.deepEqual(told(nothing, world.observe()), ["remove default (none) no longer wanted"]);
  const { refusals } = plan(nothing, world.observe(), { removeVolumes: true });
  assert.deepEqual(
    refusals.map(({ subject }) => subject),
    ["volume v"],
  );
  const open = settle(withVolume({ protect: false }));
  assert.deepEqual(told(nothing, open.observe(), { removeVolumes: true }), [
    "remove default (none) no longer wanted",
    "remove v (data-loss) no longer wanted",
  ]);
});

test("protect refuses removal and scaling down, and allows a change to recreate", () => {
  const older = generationOf({ web: { protect: true, replicas: 2 } });
  const observed = settle(older).observe();
  for (const newer of [generationOf({}), generationOf({ web: { protect: true } })]) {
    const { steps, refusals } = plan(desire(newer), observed, keepVolumes);
    assert.deepEqual(
      refusals.map(({ subject }) => subject),
      ["container web"],
    );
    assert(!steps.some(({ action }) => action.kind === "remove-instance"));
  }
  const recreated = plan(
    desire(generationOf({ web: { protect: true, replicas: 2, image: "app:2" } })),
    observed,
    keepVolumes,
  );
  assert.deepEqual(recreated.refusals, []);
  assert.equal(recreated.steps.filter(({ action }) => action.kind === "create-instance").length, 2);
});

test("needs in a circle, as two generations may leave them, do not make a plan that cannot be done", () => {
  const world = settle(generationOf({ a: {}, b: {} }));
  for (const [name, needed] of [
    ["a-1", "b"],
    ["b-1", "a"],
  ] as const) {
    const section = [...world.instances.values()][0]?.section;
    if (section !== undefined) change(world, name, { section: { ...section, needs: [needed] } });
  }
  perform(world, nothing, plan(nothing, world.observe(), keepVolumes), () => 0, Infinity);
  assert.equal(world.instances.size, 0);
});

function idWith(parts: Partial<InstanceSection>): string {
  return desire(generationOf({ web: parts })).instances[0]?.id ?? "";
}

test("equal generations have equal ids, and nothing that changes in place is in them", () => {
  assert.equal(
    idWith({ env: { A: { value: "1" }, B: { value: "2" } } }),
    idWith({ env: { B: { value: "2" }, A: { value: "1" } } }),
  );
  assert.equal(
    idWith({}),
    idWith({ memoryBytes: 1, cpus: 1, pids: 1, restart: "never", needs: ["x"], protect: true, stopGraceMs: 1 }),
  );
  assert.notEqual(idWith({}), idWith({ user: "x" }));
  assert.notEqual(idWith({}), idWith({ networks: [] }));
  // Ids name what runs on hosts: if this changes, an upgrade of Croft recreates every instance everywhere.
  assert.equal(idWith({ env: { A: { value: "1" } } }), "shop.web.1.94d234a9");
});
