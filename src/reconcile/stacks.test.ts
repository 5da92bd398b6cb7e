import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, isFault } from "../base/fault.ts";
import type { InstanceId, NetworkId, VolumeId } from "../base/id.ts";
import type { InstanceSection } from "../stack/model.ts";
import { applyOptions, check, stackOf, submit, World, type Daemon } from "./world.fixture.ts";

const publish: InstanceSection["publish"] = [{ hostAddress: "0.0.0.0", hostPort: 8080, port: 80, protocol: "tcp" }];
const quick = { order: "stop-first", healthyWithinMs: 3000 } as const;

async function begin(): Promise<{ world: World; daemon: Daemon }> {
  const world = new World();
  return { world, daemon: await world.boot() };
}

async function statuses(daemon: Daemon): Promise<readonly string[]> {
  return (await daemon.stacks.generations("shop", daemon.world.call)).map(
    ({ number, status, current }) => `${number} ${status}${current ? " *" : ""}`,
  );
}

/** What happened to instances, in order: `+web-1` started, `-web-1` ended. */
function trace(world: World): string[] {
  const seen: string[] = [];
  world.engine.listeners.add((event) => {
    if (event.kind !== "started" && event.kind !== "exited") return;
    const [, name, ordinal] = event.id.split(".");
    seen.push(`${event.kind === "started" ? "+" : "-"}${name}-${ordinal}`);
  });
  return seen;
}

test("up brings everything to run, and the same again touches nothing", async () => {
  const { world, daemon } = await begin();
  const spec = stackOf({ db: { health: check }, web: { replicas: 2, needs: ["db"] } });
  const up = await daemon.up(spec);
  assert.deepEqual([up.status, up.result], ["succeeded", { stack: "shop", generation: 1 }]);
  assert.deepEqual(world.names(), ["db-1", "web-1", "web-2"]);
  const before = world.running();
  const calls = daemon.calls;
  const again = await daemon.up(spec);
  assert.deepEqual(again.result, { stack: "shop", generation: 1 });
  assert.deepEqual(world.running(), before);
  assert.equal(daemon.calls, calls);
  assert.deepEqual(daemon.stacks.get("shop"), {
    name: "shop",
    origin: "file",
    status: "healthy",
    generation: 1,
    wanted: 3,
    running: 3,
    updatedMs: daemon.stacks.get("shop").updatedMs,
  });
});

test("what is needed is healthy before what needs it starts", async () => {
  const { world, daemon } = await begin();
  world.sick.add("db");
  const seen = trace(world);
  const going = daemon.up(stackOf({ web: { needs: ["db"] }, db: { health: check } }), 20_000);
  await daemon.pass(1000);
  assert.deepEqual(seen, ["+db-1"]);
  world.sick.clear();
  assert.equal((await going).status, "succeeded");
  assert.deepEqual(seen, ["+db-1", "+web-1"]);
});

test("an update replaces one replica after the other, and touches nothing else", async () => {
  const { world, daemon } = await begin();
  const parts = { replicas: 3, health: check };
  await daemon.up(stackOf({ web: parts, other: {} }));
  const other = world.pid("other-1");
  const seen = trace(world);
  assert.equal((await daemon.up(stackOf({ web: { ...parts, image: "app:2" }, other: {} }))).status, "succeeded");
  assert.deepEqual(seen, ["-web-1", "+web-1", "-web-2", "+web-2", "-web-3", "+web-3"]);
  assert.equal(world.pid("other-1"), other);
  assert.deepEqual(await statuses(daemon), ["2 live *", "1 superseded"]);
});

test("start-first begins the new one before the old one goes", async () => {
  const { world, daemon } = await begin();
  const parts = { health: check, update: { order: "start-first", healthyWithinMs: 5000 } } as const;
  await daemon.up(stackOf({ web: parts }));
  const seen = trace(world);
  await daemon.up(stackOf({ web: { ...parts, image: "app:2" } }));
  assert.deepEqual(seen, ["+web-1", "-web-1"]);
});

test("the old one still lets in who was on the way to it when the new one took its ports over", async () => {
  const { world, daemon } = await begin();
  const parts = { publish, health: check, update: { order: "start-first", healthyWithinMs: 5000 } } as const;
  await daemon.up(stackOf({ web: parts }));
  const [old] = world.running().keys();
  const led = (): readonly string[] =>
    world.host.routing.published.flatMap(({ targets }) => targets.map(({ address }) => address));
  const before = led();
  const submitted = submit(stackOf({ web: { ...parts, image: "app:2" } }));
  const { id } = await daemon.stacks.apply(submitted, applyOptions, world.call);
  let leadsElsewhereMs: number | undefined;
  let endedMs: number | undefined;
  while ((await daemon.operations.get(id)).status === "running") {
    await daemon.pass(10);
    const nowMs = world.clock.nowMs();
    assert.ok(led().length > 0, "somebody always has the port");
    if (!led().some((address) => before.includes(address))) leadsElsewhereMs ??= nowMs;
    if (old !== undefined && !world.running().has(old)) endedMs ??= nowMs;
  }
  assert.ok(leadsElsewhereMs !== undefined && endedMs !== undefined);
  assert.ok(endedMs - leadsElsewhereMs >= 90, `after ${endedMs - leadsElsewhereMs} ms`);
});

test("more replicas and fewer again leave those that stay alone", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { replicas: 1 } }));
  const first = world.pid("web-1");
  await daemon.up(stackOf({ web: { replicas: 4 } }));
  assert.deepEqual(world.names(), ["web-1", "web-2", "web-3", "web-4"]);
  await daemon.up(stackOf({ web: { replicas: 2 } }));
  assert.deepEqual(world.names(), ["web-1", "web-2"]);
  assert.equal(world.pid("web-1"), first);
});

test("rollback goes back by hand, and history tells it", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { image: "app:1" } }));
  const [old] = world.running().keys();
  await daemon.up(stackOf({ web: { image: "app:2" } }));
  const back = await daemon.follow(await daemon.stacks.rollback("shop", undefined, "tester", world.call), 5000);
  assert.deepEqual(back.result, { stack: "shop", generation: 1 });
  assert.deepEqual([...world.running().keys()], [old]);
  assert.deepEqual(await statuses(daemon), ["2 rolled-back", "1 live *"]);
  await assert.rejects(daemon.stacks.rollback("shop", 1, "tester", world.call), { reason: "precondition" });
  await assert.rejects(daemon.stacks.rollback("shop", 7, "tester", world.call), { reason: "not-found" });
  const { from, to, before, after } = await daemon.stacks.compare("shop", 0, 2, world.call);
  assert.deepEqual([from, to], [1, 2]);
  assert.equal(before?.spec.instances["web"]?.image, "app:1");
  assert.equal(after.spec.instances["web"]?.image, "app:2");
});

test("what is still being started is taken away at once when nobody wants it any more", async () => {
  const { world, daemon } = await begin();
  world.engine.startsForEver = true;
  assert.equal((await daemon.up(stackOf({ web: { update: quick } }), 30_000)).fault?.reason, "unhealthy");
  assert.equal((await daemon.down("shop", false, 100)).status, "succeeded");
  assert.equal(world.engine.instances.size, 0);
});

test("a start that never returns is judged in time, though nothing else happens", async () => {
  const { world, daemon } = await begin();
  world.engine.startsForEver = true;
  const beganMs = world.clock.nowMs();
  // Its turn comes after that of its network, when the plan was made long ago.
  const failed = await daemon.up(stackOf({ web: { update: quick } }), 30_000);
  assert.match(failed.fault?.message ?? "", /web was not healthy within 3 s/);
  assert.ok(world.clock.nowMs() - beganMs < 4000, `after ${world.clock.nowMs() - beganMs} ms`);
});

test("a generation that is not healthy in time goes back by itself, with the last log lines", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { health: check } }));
  world.programs.set("app:2", ["/bin/sh", "-c", "echo no database; sleep 1000"]);
  world.sick.add("web");
  const spec = stackOf({ web: { health: { ...check, intervalMs: 10_000 }, image: "app:2", update: quick } });
  const going = daemon.up(spec, 30_000);
  await daemon.pass(3300);
  world.sick.clear();
  const failed = await going;
  assert.equal(failed.fault?.reason, "unhealthy");
  assert.match(failed.fault?.message ?? "", /web was not healthy within 3 s[^]*last log lines:\n {2}no database/);
  assert.match(failed.fault?.message ?? "", /shop is back at generation 1/);
  assert.deepEqual(await statuses(daemon), ["2 failed", "1 live *"]);
  assert.deepEqual(
    [...world.engine.instances.values()].map(({ launch }) => (launch.kind === "program" ? launch.argv[0] : "")),
    ["sleep"],
  );
  assert.equal((await world.published("generation.failed")).length, 1);
});

test("a first generation that fails is left to be looked at", async () => {
  const { world, daemon } = await begin();
  world.sick.add("web");
  const failed = await daemon.up(stackOf({ web: { health: { ...check, intervalMs: 10_000 }, update: quick } }), 8000);
  assert.match(failed.fault?.message ?? "", /it is left as it is/);
  assert.deepEqual(await statuses(daemon), ["1 failed *"]);
  assert.equal(daemon.stacks.get("shop").status, "failed");
  assert.deepEqual(world.names(), ["web-1"]);
  world.sick.clear();
  assert.equal((await daemon.up(stackOf({ web: { health: check, image: "app:2" } }))).status, "succeeded");
});

test("a crash loop fails early", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: {} }));
  const beganMs = world.clock.nowMs();
  const failed = await daemon.up(stackOf({ web: { command: ["exit", "3"] } }), 60_000);
  assert.match(failed.fault?.message ?? "", /web exited 4 times, last with code 3/);
  assert.ok(world.clock.nowMs() - beganMs < 5000);
  assert.deepEqual(world.names(), ["web-1"]);
});

for (const reason of ["hostile", "invalid"] as const) {
  test(`what will never work (${reason}) fails at once`, async () => {
    const { world, daemon } = await begin();
    await daemon.up(stackOf({ web: {} }));
    const spec = stackOf({ web: { image: reason === "invalid" ? "bare:1" : "app:2" } });
    if (reason === "hostile") world.engine.faults.set("create", new Fault("hostile", "a path leads out of the root"));
    const going = daemon.up(spec, 10_000);
    await daemon.pass();
    assert.deepEqual(await statuses(daemon), ["2 failed", "1 live *"]);
    world.engine.faults.clear();
    assert.equal((await going).fault?.reason, "unhealthy");
    assert.deepEqual(world.names(), ["web-1"]);
  });
}

test("a port that somebody holds fails the generation, and the holder is named", async () => {
  const { world, daemon } = await begin();
  world.host.occupied.set("tcp 8080", "nginx (pid 812)");
  const failed = await daemon.up(stackOf({ web: { publish } }), 10_000);
  assert.match(
    failed.fault?.message ?? "",
    /tcp port 8080 cannot be published for shop\/web: nginx \(pid 812\) holds it/,
  );
  world.host.occupied.clear();
  assert.equal((await daemon.up(stackOf({ web: { publish, image: "app:2" } }))).status, "succeeded");
  const clash = { ...stackOf({ site: { publish } }), stack: "blog" };
  await assert.rejects(daemon.up(clash), { reason: "protected", message: /8080\/tcp is published by shop\/web/ });
});

test("the gate goes on after the daemon was dropped", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { health: check } }));
  world.sick.add("web");
  await daemon.up(stackOf({ web: { health: check, image: "app:2", update: quick } }), 1000);
  daemon.kill();
  const next = await world.boot();
  await next.pass(15_000);
  assert.deepEqual(await statuses(next), ["2 failed", "1 live *"]);
});

test("an apply that is overtaken says so, and the last one counts", async () => {
  const { world, daemon } = await begin();
  world.sick.add("web");
  const first = await daemon.up(stackOf({ web: { health: check } }), 200);
  assert.equal(first.status, "running");
  world.sick.clear();
  assert.equal((await daemon.up(stackOf({ web: { health: check, image: "app:2" } }))).status, "succeeded");
  const overtaken = await daemon.operations.get(first.id);
  assert.equal(overtaken.fault?.reason, "conflict");
  assert.deepEqual(await statuses(daemon), ["2 live *", "1 failed"]);
});

test("two applies at once get two numbers", async () => {
  const { daemon } = await begin();
  const specs = ["app:1", "app:2", "app:3"].map((image) => stackOf({ web: { image } }));
  const ends = await Promise.all(specs.map((spec) => daemon.up(spec, 8000)));
  assert.equal(ends.filter(({ status }) => status === "succeeded").length, 1);
  assert.deepEqual(await statuses(daemon), ["3 live *", "2 failed", "1 failed"]);
});

test("an apply meant for another generation is refused", async () => {
  const { daemon } = await begin();
  await daemon.up(stackOf({ web: {} }));
  await assert.rejects(daemon.up(stackOf({ web: { image: "app:2" } }), 0, { baseGeneration: 0 }), {
    reason: "conflict",
  });
});

test("an apply that is cancelled while it waits leaves the loop going on", async () => {
  const { world, daemon } = await begin();
  world.sick.add("web");
  const { id } = await daemon.up(stackOf({ web: { health: check } }), 200);
  await daemon.operations.cancel(id);
  await daemon.pass();
  assert.equal((await daemon.operations.get(id)).status, "cancelled");
  world.sick.clear();
  await daemon.pass(2000);
  assert.deepEqual(await statuses(daemon), ["1 live *"]);
});

const volumes = { data: { protect: false } };
const mounts: InstanceSection["mounts"] = [
  { kind: "volume", volume: "data", destination: "/data", readOnly: false },
  { kind: "secret", secret: "key", destination: "/key", mode: 0o400 },
];
const secrets = { key: { source: "env", variable: "KEY" } } as const;

test("down leaves volumes, secrets and history; with volumes nothing is left", async () => {
  const { world, daemon } = await begin();
  const spec = stackOf({ db: { mounts } }, { volumes, secrets });
  await daemon.up(submit(spec, { key: "1" }));
  assert.equal((await daemon.down("shop")).status, "succeeded");
  const kept = await world.remains();
  assert.deepEqual(kept, {
    ...Object.fromEntries(Object.keys(kept).map((key) => [key, []])),
    volumes: ["shop.data"],
    stacks: ["shop"],
    generations: ["shop/00000001"],
  });
  assert.deepEqual(daemon.stacks.list(), []);
  assert.equal((await daemon.up(submit(spec))).status, "succeeded");
  await daemon.down("shop", true);
  const none = await world.remains();
  assert.deepEqual(none, Object.fromEntries(Object.keys(none).map((key) => [key, []])));
  assert.deepEqual(await world.secrets.list("shop"), []);
  assert.throws(() => daemon.stacks.get("shop"), { reason: "not-found" });
  // The same name again is a new stack.
  assert.deepEqual((await daemon.up(submit(spec, { key: "1" }))).result, { stack: "shop", generation: 1 });
});

test("a removal asked for while the loop settles removes everything all the same", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { replicas: 2 } }));
  for (let turn = 0; turn < 4; turn += 1) {
    daemon.reconciler.find("shop")?.wake();
    const going = daemon.stacks.remove("shop", { volumes: true }, world.call);
    for (let step = 0; step < turn * 3; step += 1) await Promise.resolve();
    daemon.reconciler.find("shop")?.wake();
    await daemon.follow(await going, 10_000);
    const none = await world.remains();
    assert.deepEqual(none, Object.fromEntries(Object.keys(none).map((key) => [key, []])));
    await daemon.up(stackOf({ web: { replicas: 2 } }));
  }
});

test("what is protected stays", async () => {
  const { world, daemon } = await begin();
  const kept = { data: { protect: true } };
  await daemon.up(stackOf({ db: { mounts: mounts.slice(0, 1), protect: true }, web: {} }, { volumes: kept }));
  await assert.rejects(daemon.down("shop"), { reason: "protected" });
  await assert.rejects(daemon.up(stackOf({ web: {} }, { volumes: kept })), { reason: "protected" });
  await daemon.up(stackOf({ db: { mounts: mounts.slice(0, 1) }, web: {} }, { volumes: kept }));
  await assert.rejects(daemon.down("shop", true), { reason: "protected" });
  await assert.rejects(daemon.stacks.removeVolume("shop.data" as VolumeId, world.call), { reason: "protected" });
  assert.equal((await daemon.down("shop")).status, "succeeded");
  await assert.rejects(daemon.down("shop", true), { reason: "protected" });
});

test("a new value of a secret is a new generation, the same value is not", async () => {
  const { world, daemon } = await begin();
  const spec = stackOf({ db: { mounts: mounts.slice(1) }, web: {} }, { secrets });
  await daemon.up(submit(spec, { key: "1" }));
  const web = world.pid("web-1");
  assert.deepEqual((await daemon.up(submit(spec, { key: "1" }))).result, { stack: "shop", generation: 1 });
  assert.deepEqual((await daemon.up(submit(spec, { key: "2" }))).result, { stack: "shop", generation: 2 });
  const launch = world.engine.instances.get(world.id("db-1"))?.launch;
  const file = launch?.kind === "program" ? launch.mounts.find((mount) => mount.kind === "file") : undefined;
  assert.equal(file?.kind === "file" && Buffer.from(file.content).toString(), "2");
  assert.equal(world.pid("web-1"), web);
  await assert.rejects(
    daemon.up(submit(stackOf({}, { secrets: { other: secrets.key } })), 100).then(({ fault }) => {
      throw Object.assign(new Error(fault?.message), { reason: fault?.reason });
    }),
    { reason: "invalid" },
  );
});

const damages: Readonly<Record<string, (world: World, id: InstanceId) => Promise<void> | void>> = {
  "an instance that vanished": (world, id) => {
    world.engine.instances.get(id)?.process?.signal("SIGKILL");
    world.engine.instances.delete(id);
  },
  "a link that is gone": (world, id) => void world.host.damaged.add(id),
  "a damaged network": (world) => void world.host.damaged.add("shop.default" as NetworkId),
  "a root that is not attached": (world, id) => world.pool.detachRoot(id),
  "lost names and ports": (world) => {
    world.host.routing = { names: [], published: [] };
    world.host.damaged.add("routing");
  },
  "a broken instance": (world, id) => {
    const instance = world.engine.instances.get(id);
    if (instance !== undefined) instance.intact = false;
  },
};

for (const [name, damage] of Object.entries(damages)) {
  test(`${name} is repaired at the next look`, async () => {
    const { world, daemon } = await begin();
    await daemon.up(stackOf({ web: { publish, health: check }, other: {} }));
    const before = { ...(await world.remains()), routing: world.host.routing };
    await damage(world, world.id("web-1"));
    await daemon.pass(25_000);
    assert.deepEqual({ ...(await world.remains()), routing: world.host.routing }, before);
    assert.deepEqual(world.names(), ["other-1", "web-1"]);
    assert.equal(world.host.damaged.size, 0);
  });
}

test("a volume that was taken off the host is attached again by whoever starts next, and nobody is stopped for it", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ db: { mounts: mounts.slice(0, 1) }, web: {} }, { volumes }));
  const before = await world.remains();
  const running = world.pid("db-1");
  await world.pool.detachVolume("shop.data" as VolumeId);
  await daemon.pass(25_000);
  assert.equal(world.pid("db-1"), running);
  world.engine.instances.get(world.id("db-1"))?.process?.signal("SIGKILL");
  await daemon.pass(25_000);
  assert.notEqual(world.pid("db-1"), running);
  assert.deepEqual(await world.remains(), before);
  assert.equal((await world.pool.list()).volumes[0]?.attached, true);
  // Whoever asks for a restart need not wait for the next look.
  await world.pool.detachVolume("shop.data" as VolumeId);
  await daemon.during(daemon.instances.restart(world.id("db-1"), undefined, world.call));
  assert.equal((await world.pool.list()).volumes[0]?.attached, true);
});

test("a step that keeps failing is told once and tried ever more seldom", async () => {
  const { world, daemon } = await begin();
  world.engine.faults.set("create", new Fault("failed", "no space in the test"));
  const going = daemon.up(stackOf({ web: { update: { order: "stop-first", healthyWithinMs: 600_000 } } }), 60_000);
  await daemon.pass(20_000);
  assert.equal((await world.published("step.failed")).length, 1);
  assert.equal(daemon.view("web").message, "no space in the test");
  world.engine.faults.set("create", new Fault("failed", "another one"));
  await daemon.pass(30_000);
  assert.equal((await world.published("step.failed")).length, 2);
  world.engine.faults.clear();
  assert.equal((await going).status, "succeeded");
  assert.equal(daemon.view("web").message, "");
});

test("an address belongs to its slot, whatever is in it", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: {}, other: {} }));
  const addresses = (): unknown => daemon.instances.list().map(({ name, addresses: all }) => [name, all]);
  const before = addresses();
  await daemon.up(stackOf({ web: { image: "app:2" }, other: {} }));
  assert.deepEqual(addresses(), before);
  daemon.kill();
  const next = await world.boot();
  assert.deepEqual(
    next.instances.list().map(({ name, addresses: all }) => [name, all]),
    before,
  );
});

test("a network is made as large as its stack", async () => {
  const { world, daemon } = await begin();
  assert.equal((await daemon.up(stackOf({ web: { replicas: 300 } }))).status, "succeeded");
  assert.equal(world.names().length, 300);
  assert.match(daemon.stacks.networks()[0]?.subnet ?? "", /\/22$/);
  assert.equal(daemon.stacks.networks()[0]?.members.length, 300);
});

test("names and ports of what runs are there through a restart of the daemon", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { publish, health: check } }));
  await daemon.up({ ...stackOf({ site: {} }), stack: "blog" });
  const before = JSON.stringify(world.host.routing);
  daemon.kill();
  const seen = new Set<string>();
  const { host } = world;
  let routing = host.routing;
  Object.defineProperty(host, "routing", {
    get: () => routing,
    set: (value: typeof routing) => {
      routing = value;
      seen.add(JSON.stringify({ ...value, names: value.names.toSorted((a, b) => (a.address < b.address ? -1 : 1)) }));
    },
  });
  const next = await world.boot();
  await next.pass(3000);
  assert.equal(seen.size, 1);
  assert.equal(JSON.stringify(routing).length, before.length);
});

test("events say what happened", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: {} }));
  await daemon.instances.kill(world.id("web-1"), "SIGTERM", world.call);
  await daemon.pass(1000);
  await daemon.down("shop", true);
  for (const [kind, count] of Object.entries({
    "instance.started": 2,
    "instance.exited": 2,
    "generation.live": 1,
    "stack.removed": 1,
    "step.failed": 0,
  })) {
    assert.equal((await world.published(kind)).length, count, kind);
  }
});

test("a preview changes nothing and names what is missing", async () => {
  const { world, daemon } = await begin();
  const spec = stackOf({ web: {}, other: { image: "missing:1" } });
  const preview = await daemon.stacks.preview(submit(spec), { pruneVolumes: false }, world.call);
  assert.deepEqual(preview.missingImages, ["missing:1"]);
  assert.ok(preview.plan.steps.length > 0);
  assert.deepEqual(daemon.stacks.list(), []);
  const failed = await daemon.follow(await daemon.stacks.apply(submit(spec), applyOptions, world.call), 1000);
  assert.equal(failed.fault?.reason, "not-found");
});

test("a daemon whose database was lost refuses to start, and takes nothing away", async () => {
  const world = new World();
  const daemon = await world.boot();
  await daemon.up(stackOf({ web: {} }));
  daemon.kill();
  const pid = world.pid("web-1");
  for (const { key } of await world.store.list("", world.call)) await world.store.remove(key, "any", world.call);
  await assert.rejects(
    world.boot(),
    (error) => isFault(error, "precondition") && /database is empty/.test(error.message),
  );
  assert.equal(world.pid("web-1"), pid);
  assert.equal((await world.pool.list()).roots.length, 1);
});
