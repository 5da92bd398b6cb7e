import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, isFault } from "../base/fault.ts";
import { settled } from "../base/test-clock.ts";
import { breakInstance } from "../instance/memory/engine.ts";
import type { InstanceSection } from "../stack/model.ts";
import { check, runOf, stackOf, World, type Daemon } from "./world.fixture.ts";

async function begin(
  sections?: Readonly<Record<string, Partial<InstanceSection>>>,
): Promise<{ world: World; daemon: Daemon }> {
  const world = new World();
  const daemon = await world.boot();
  if (sections !== undefined) assert.equal((await daemon.up(stackOf(sections))).status, "succeeded");
  return { world, daemon };
}

test("what was stopped stays so, also for the next daemon, until an apply", async () => {
  for (const restart of ["always", "on-failure", "never"] as const) {
    const { world, daemon } = await begin({ web: { replicas: 2, restart } });
    const { id } = daemon.view("web-2");
    const other = world.pid("web-1");
    const view = await daemon.during(daemon.instances.stop(id, undefined, world.call));
    assert.deepEqual([view.status, view.exit?.code], ["exited", 143]);
    await daemon.pass(60_000);
    daemon.kill();
    const next = await world.boot();
    await next.pass(60_000);
    assert.deepEqual(world.names(), ["web-1"]);
    const up = await next.up(stackOf({ web: { replicas: 2, restart } }));
    assert.deepEqual(up.result, { stack: "shop", generation: 1 });
    assert.deepEqual(world.names(), ["web-1", "web-2"]);
    assert.equal(world.pid("web-1"), other);
  }
});

test("start begins what was stopped or has ended, and leaves alone what runs", async () => {
  const { world, daemon } = await begin({ web: {}, job: { restart: "never", command: ["exit", "0"] } });
  const web = daemon.view("web").id;
  const pid = world.pid("web-1");
  await daemon.during(daemon.instances.start(web, world.call));
  await daemon.pass(5000);
  assert.equal(world.pid("web-1"), pid);
  await daemon.during(daemon.instances.stop(web, undefined, world.call));
  const view = await daemon.during(daemon.instances.start(web, world.call));
  assert.deepEqual([view.status, view.restarts], ["running", 0]);
  const job = world.engine.instances.get(world.id("job-1"));
  assert.equal(job?.exit?.code, 0);
  const before = job.startedMs ?? 0;
  await daemon.pass(1000);
  void daemon.instances.start(daemon.view("job").id, world.call).catch(() => {});
  await daemon.pass(1000);
  assert.ok((world.engine.instances.get(world.id("job-1"))?.startedMs ?? 0) > before);
});

test("restart makes one new run, whatever the clock says", async () => {
  for (const restart of ["always", "never"] as const) {
    const { world, daemon } = await begin({ web: { restart } });
    const before = world.pid("web-1") ?? 0;
    const view = await daemon.during(daemon.instances.restart(daemon.view("web").id, 0, world.call));
    await daemon.pass(60_000);
    assert.equal(world.pid("web-1"), before + 1);
    assert.deepEqual([view.status, view.restarts], ["running", 0]);
    daemon.kill();
    const next = await world.boot();
    await next.pass(60_000);
    assert.equal(world.pid("web-1"), before + 1);
  }
});

test("the grace of a stop is the one that was asked for", async () => {
  const { world, daemon } = await begin({ web: { command: ["/bin/sh", "-c", "trap '' TERM; sleep 1000"] } });
  const beganMs = world.clock.nowMs();
  await daemon.during(daemon.instances.stop(daemon.view("web").id, 300, world.call));
  assert.ok(world.clock.nowMs() - beganMs < 1000);
  assert.equal(daemon.view("web").exit?.code, 137);
});

test("a grace that was asked for when nothing ran is not that of a later run", async () => {
  const { world, daemon } = await begin({ web: { command: ["/bin/sh", "-c", "trap '' TERM; sleep 1000"] } });
  const { id } = daemon.view("web");
  await daemon.during(daemon.instances.stop(id, 0, world.call));
  for (const end of [
    () => daemon.during(daemon.instances.stop(id, undefined, world.call), 20_000),
    () => daemon.down("shop"),
  ]) {
    await daemon.during(daemon.instances.stop(id, 0, world.call));
    await daemon.during(daemon.instances.start(id, world.call));
    const beganMs = world.clock.nowMs();
    await end();
    assert.ok(world.clock.nowMs() - beganMs >= 10_000);
  }
});

test("an exit is seen although looks at the host are slow and another was asked for meanwhile", async () => {
  const { world, daemon } = await begin({ job: { restart: "never" } });
  const list = world.pool.list.bind(world.pool);
  let looks = 0;
  world.pool.list = async () => {
    looks += 1;
    await world.clock.sleep(600);
    return await list();
  };
  const { suspect } = daemon.reconciler.shared;
  for (const waitMs of [300, 300]) {
    suspect();
    await daemon.pass(waitMs);
  }
  await daemon.instances.kill(daemon.view("job").id, "SIGKILL", world.call);
  await daemon.pass(400);
  assert.deepEqual([looks, daemon.view("job").status, daemon.view("job").exit?.code], [1, "exited", 137]);
  await daemon.pass(600);
  assert.deepEqual([looks, daemon.view("job").status], [2, "exited"]);
});

test("a killed instance follows its restart policy", async () => {
  const { world, daemon } = await begin({ web: {}, job: { restart: "never" } });
  const pid = world.pid("web-1") ?? 0;
  await daemon.instances.kill(daemon.view("web").id, "SIGKILL", world.call);
  await daemon.instances.kill(daemon.view("job").id, "SIGTERM", world.call);
  await daemon.pass(60_000);
  assert.ok((world.pid("web-1") ?? 0) > pid);
  assert.equal(daemon.view("web").restarts, 1);
  assert.deepEqual([daemon.view("job").status, daemon.view("job").exit?.code], ["exited", 143]);
});

test("what is paused is left alone until it is unpaused", async () => {
  const { world, daemon } = await begin({ web: { health: check } });
  const { id, pid } = daemon.view("web");
  assert.equal((await daemon.instances.pause(id, world.call)).status, "paused");
  await daemon.pass(60_000);
  assert.equal(daemon.view("web").status, "paused");
  assert.equal((await daemon.instances.unpause(id, world.call)).status, "running");
  await daemon.pass(2000);
  assert.deepEqual([daemon.view("web").pid, daemon.view("web").health], [pid, "healthy"]);
});

test("a restart of what is paused is one new run, and a pause that ends later is only that", async () => {
  const { world, daemon } = await begin({ web: {} });
  const { id, pid } = daemon.view("web");
  await daemon.instances.pause(id, world.call);
  const view = await daemon.during(daemon.instances.restart(id, undefined, world.call), 20_000);
  assert.deepEqual([view.status, view.pid], ["running", (pid ?? 0) + 1]);
  await daemon.instances.pause(id, world.call);
  await daemon.instances.unpause(id, world.call);
  await daemon.pass(60_000);
  assert.equal(world.pid("web-1"), view.pid);
});

test("a start that fails says so, whatever else of the stack fails already", async () => {
  const { world, daemon } = await begin({ web: {}, db: {} });
  const { id } = daemon.view("db");
  await daemon.during(daemon.instances.stop(id, undefined, world.call));
  world.engine.faults.set("create", new Fault("failed", "no space for web"));
  breakInstance(world.engine, daemon.view("web").id);
  await daemon.pass(1000);
  assert.equal(daemon.view("web").message, "no space for web");
  world.engine.faults.set("start", new Fault("failed", "db does not begin"));
  await assert.rejects(daemon.during(daemon.instances.start(id, world.call)), { message: "db does not begin" });
  await assert.rejects(daemon.during(daemon.instances.restart(id, 0, world.call)), { message: "db does not begin" });
  // How it failed to start says nothing about its end.
  assert.equal((await daemon.during(daemon.instances.stop(id, undefined, world.call))).status, "exited");
});

/** When it was started, from the first start on. */
function starts(world: World): number[] {
  const times: number[] = [];
  world.engine.listeners.add((event) => {
    if (event.kind === "started") times.push(world.clock.nowMs());
  });
  return times;
}

test("restarts wait 100 ms, then twice as long each time, and a good run is forgiven", async () => {
  const world = new World();
  const daemon = await world.boot();
  world.programs.set("app:2", ["exit", "1"]);
  const times = starts(world);
  await daemon.up(stackOf({ web: { image: "app:2" } }), 100);
  await daemon.pass(3500);
  const waits = times.slice(1).map((timeMs, index) => timeMs - (times[index] ?? 0));
  assert.deepEqual(waits.slice(0, 5), [100, 200, 400, 800, 1600]);
  // It has run for more than ten seconds: the next wait is a short one.
  const other = await world.boot();
  const later = starts(world);
  await other.up({ ...stackOf({ web: { command: ["sleep", "11"] } }), stack: "good" }, 2000);
  daemon.kill();
  await other.pass(25_000);
  const gaps = later.slice(-2).map((timeMs, index, all) => timeMs - (all[index - 1] ?? timeMs));
  assert.ok((gaps[1] ?? 0) <= 11_100);
});

test("on-failure starts again what failed and not what ended well; never starts nothing", async () => {
  const { world, daemon } = await begin();
  const sections = {
    well: { restart: "on-failure", command: ["exit", "0"] },
    ill: { restart: "on-failure", command: ["/bin/sh", "-c", "sleep 2; exit 1"] },
    once: { restart: "never", command: ["/bin/sh", "-c", "sleep 2; exit 1"] },
  } as const;
  await daemon.up(stackOf(sections), 1800);
  await daemon.pass(10_000);
  assert.deepEqual(
    ["well", "ill", "once"].map((name) => [name, daemon.view(name).restarts > 0]),
    [
      ["well", false],
      ["ill", true],
      ["once", false],
    ],
  );
  assert.equal(world.engine.instances.size, 3);
});

test("what becomes unhealthy is started again", async () => {
  const { world, daemon } = await begin({ web: { health: check } });
  const pid = world.pid("web-1");
  world.sick.add("web");
  await daemon.pass(1500);
  assert.deepEqual([daemon.view("web").health, daemon.view("web").pid], ["healthy", pid]);
  await daemon.pass(1000);
  world.sick.clear();
  await daemon.pass(2000);
  assert.notEqual(world.pid("web-1"), pid);
  assert.equal(daemon.view("web").health, "healthy");
  assert.equal(world.host.routing.names.length > 0, true);
});

test("a run gives a view, and its first byte to who attaches", async () => {
  const { world, daemon } = await begin();
  const request = runOf({ name: "job", attach: true, remove: true, command: ["/bin/sh", "-c", "echo first; exit 4"] });
  const { instance, session } = await daemon.during(daemon.instances.run(request, world.call));
  assert.equal(instance.name, "job");
  assert.ok(session !== undefined);
  let said = "";
  for await (const { bytes } of session.output) said += Buffer.from(bytes).toString();
  assert.equal(said, "first\n");
  assert.equal(await daemon.during(session.exited), 4);
  const { generations: _, stacks, pages, networks, ...rest } = await world.remains();
  assert.deepEqual([stacks, pages, networks], [["run"], ["run.default"], ["run.default"]]);
  assert.deepEqual(rest, Object.fromEntries(Object.keys(rest).map((key) => [key, []])));
});

test("a run keeps what has ended until somebody removes it", async () => {
  const { world, daemon } = await begin();
  await daemon.during(daemon.instances.run(runOf({ name: "job", command: ["exit", "2"] }), world.call));
  await daemon.pass(60_000);
  const { id, status, exit } = daemon.view("job");
  assert.deepEqual([status, exit?.code], ["exited", 2]);
  await assert.rejects(daemon.instances.run(runOf({ name: "job" }), world.call), { reason: "already-exists" });
  await daemon.during(daemon.instances.remove(id, false, world.call));
  assert.deepEqual((await world.remains())["stacks"], ["run"]);
  assert.throws(() => daemon.view("job"), { reason: "not-found" });
});

test("a run that cannot begin leaves nothing, and its name is free", async () => {
  const { world, daemon } = await begin();
  world.engine.faults.set("start", new Fault("not-found", "no such program"));
  await assert.rejects(daemon.during(daemon.instances.run(runOf({ name: "job" }), world.call)), {
    message: "no such program",
  });
  world.engine.faults.clear();
  await daemon.pass(2000);
  assert.deepEqual((await world.remains())["stacks"], ["run"]);
  assert.equal((await world.remains())["instances"]?.length, 0);
  const { instance } = await daemon.during(daemon.instances.run(runOf({ name: "job" }), world.call));
  assert.equal(instance.status, "running");
});

test("a run names only networks that are there", async () => {
  const { world, daemon } = await begin({ web: {} });
  const { section } = runOf();
  const join = (network: string) =>
    daemon.instances.run(runOf({ name: "job", section: { ...section, networks: [network] } }), world.call);
  for (const network of ["nope", "shop/nope", "shop"]) {
    await assert.rejects(daemon.during(join(network)), { message: `there is no network ${network}` });
  }
  const { instance } = await daemon.during(join("shop/default"));
  assert.equal(instance.status, "running");
});

test("a program is not run inside an instance that is paused", async () => {
  const { world, daemon } = await begin({ web: {} });
  const { id } = daemon.view("web");
  await daemon.instances.pause(id, world.call);
  await assert.rejects(daemon.instances.exec(id, { argv: ["exit", "0"] } as never, world.call), {
    message: "shop/web is paused",
  });
});

test("of two runs of one name the first has it; a stack's name is never taken, nor are its volumes", async () => {
  const { world, daemon } = await begin({ web: {} });
  const both = [1, 2].map(() => daemon.instances.run(runOf({ name: "job" }), world.call));
  const ends = await daemon.during(Promise.allSettled(both));
  assert.deepEqual(ends.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  assert.equal(daemon.view("job").status, "running");
  await daemon.down("shop");
  await assert.rejects(daemon.instances.run(runOf({ name: "shop" }), world.call), { reason: "already-exists" });
  await assert.rejects(daemon.instances.run(runOf({ name: "run" }), world.call), { reason: "already-exists" });
});

test("a look at the host while a new stack is written does not take it for one that is gone", async () => {
  const { world, daemon } = await begin();
  const { store } = world;
  const put = store.put.bind(store);
  store.put = async (key, ...rest) => {
    // A slow disk: the host is looked at in between.
    if (key.startsWith("generation/")) await world.clock.sleep(30_000);
    return await put(key, ...rest);
  };
  const { instance } = await daemon.during(daemon.instances.run(runOf({ name: "job" }), world.call), 90_000);
  assert.equal(instance.status, "running");
  assert.equal((await daemon.up(stackOf({ web: {} }), 120_000)).status, "succeeded");
  await daemon.pass(60_000);
  assert.deepEqual(world.names(), ["job-1", "web-1"]);
});

test("many runs at once share one network", async () => {
  const { world, daemon } = await begin();
  const runs = Array.from({ length: 50 }, (_, at) => daemon.instances.run(runOf({ name: `job-${at}` }), world.call));
  const views = await daemon.during(Promise.all(runs));
  assert.equal(new Set(views.map(({ instance }) => instance.addresses[0]?.address)).size, 50);
  assert.equal(world.host.networks.size, 1);
});

test("an instance of a file is not removed by hand, one that runs only by force", async () => {
  const { world, daemon } = await begin({ web: {} });
  await assert.rejects(daemon.instances.remove(daemon.view("web").id, true, world.call), { reason: "precondition" });
  await daemon.during(daemon.instances.run(runOf({ name: "job" }), world.call));
  const { id } = daemon.view("job");
  await assert.rejects(daemon.instances.remove(id, false, world.call), { reason: "precondition" });
  await daemon.during(daemon.instances.remove(id, true, world.call), 20_000);
  assert.deepEqual(world.names(), ["web-1"]);
});

test("what is not running is told by name, with the way to start it", async () => {
  const { world, daemon } = await begin({ web: {} });
  await daemon.during(daemon.instances.run(runOf({ name: "job" }), world.call));
  for (const [name, shown] of [
    ["web", "shop/web"],
    ["job", "job"],
  ] as const) {
    const { id } = daemon.view(name);
    await daemon.during(daemon.instances.stop(id, 0, world.call), 20_000);
    const hint = `start it first: croft start ${shown}`;
    const isTold = (attempted: string) => (error: unknown) =>
      isFault(error, "precondition") && error.message === `${attempted} ${shown}: it is exited` && error.hint === hint;
    const spec = { argv: ["true"], env: {}, stdin: false };
    await assert.rejects(daemon.instances.exec(id, spec, world.call), isTold("run a program in"));
    await assert.rejects(daemon.instances.pause(id, world.call), isTold("pause"));
    await assert.rejects(daemon.instances.kill(id, "SIGTERM", world.call), isTold("send a signal to"));
  }
});

test("views tell what an instance does, in words", async () => {
  const { world, daemon } = await begin();
  world.programs.set("app:2", ["exit", "1"]);
  world.sick.add("db");
  const health = { ...check, intervalMs: 10_000 };
  const sections = { db: { health }, loop: { image: "app:2" }, late: { needs: ["db"] } };
  await daemon.up(stackOf(sections), 0);
  await daemon.pass(150);
  const told = (name: string): readonly string[] => [daemon.view(name).status, daemon.view(name).health];
  assert.deepEqual(told("db"), ["running", "starting"]);
  assert.match(daemon.view("db").message, /health exited with code 1|exit exited with code 1/);
  assert.deepEqual(told("loop"), ["restarting", "none"]);
  assert.deepEqual(told("late"), ["pending", "none"]);
  assert.equal(daemon.stacks.get("shop").status, "applying");
});

test("names: a section means all its replicas, and near ones are told", async () => {
  const { daemon } = await begin({ web: { replicas: 2 }, db: {} });
  assert.equal(daemon.instances.select("web").length, 2);
  assert.equal(daemon.instances.select("shop/").length, 3);
  assert.equal(daemon.instances.find("shop/web-2").ordinal, 2);
  assert.throws(() => daemon.instances.find("web"), { reason: "invalid" });
  assert.throws(() => daemon.instances.select("nothing"), { reason: "not-found" });
  assert.throws(() => daemon.instances.select("shop"), /shop is a stack, not an instance/);
});

test("nothing is kept in memory of what is gone: timers end with the daemon", async () => {
  const { world, daemon } = await begin({ web: { health: check } });
  await daemon.down("shop", true);
  daemon.kill();
  await settled();
  assert.equal(world.clock.waiting <= 2, true, `${world.clock.waiting} timers`);
});
