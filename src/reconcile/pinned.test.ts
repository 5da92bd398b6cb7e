import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../base/fault.ts";
import { sha256 } from "../base/id.ts";
import type { Submission } from "./contract.ts";
import type { InstanceRecord } from "./record.ts";
import { machine, stackOf, submit, World, type Daemon } from "./world.fixture.ts";

const told = machine({ cloudInit: { kind: "files", userData: { path: "user-data" }, metaData: { secret: "meta" } } });
const spec = stackOf({ files: told }, { secrets: { meta: { source: "env", variable: "META" } } });

/** The stack with this user-data and meta-data beside it. */
function withContent(userData: string, metaData = "one"): Submission {
  return { ...submit(spec, { meta: metaData }), files: { "user-data": sha256(userData) } };
}

async function begin(): Promise<{ world: World; daemon: Daemon }> {
  const world = new World();
  const daemon = await world.boot();
  assert.equal((await daemon.up(withContent("one"))).status, "succeeded");
  return { world, daemon };
}

async function planned({ stacks, world }: Daemon, submission: Submission): Promise<readonly string[]> {
  const { plan } = await stacks.preview(submission, { pruneVolumes: false }, world.call);
  return plan.steps.map(({ key, why }) => `${key.split("-")[0]}: ${why}`);
}

function metaDataOf(world: World): string | undefined {
  const launch = world.engine.instances.get(world.id("files-1"))?.launch;
  return launch?.kind === "machine" ? launch.cloudInit?.metaData : undefined;
}

test("edited user-data is planned, restarts the machine once, and is then as the file says", async () => {
  const { world, daemon } = await begin();
  const [id, pid] = [world.id("files-1"), world.pid("files-1")];
  const edited = withContent("two");
  assert.deepEqual(await planned(daemon, withContent("one")), []);
  assert.deepEqual(
    await planned(daemon, edited),
    ["stop", "update", "start"].map((kind) => `${kind}: content of user-data changed`),
  );
  assert.equal((await daemon.up(edited)).status, "succeeded");
  assert.equal(world.id("files-1"), id);
  const restarted = world.pid("files-1");
  assert.notEqual(restarted, pid);
  assert.deepEqual(await planned(daemon, edited), []);
  await daemon.pass(25_000);
  assert.equal(world.pid("files-1"), restarted);
});

test("a secret that was rotated reaches the machine that is told it", async () => {
  const { world, daemon } = await begin();
  assert.equal(metaDataOf(world), "one");
  assert.equal((await daemon.up(withContent("one", "two"))).status, "succeeded");
  assert.equal(metaDataOf(world), "two");
});

test("a change that fails half way is still to be made", async () => {
  const { world, daemon } = await begin();
  world.engine.faults.set("create", new Fault("failed", "no seed today"));
  const going = daemon.up(withContent("one", "two"), 20_000);
  await daemon.pass(1000);
  assert.equal(metaDataOf(world), "one");
  daemon.kill();
  await going;
  world.engine.faults.clear();
  const next = await world.boot();
  await next.pass(10_000);
  assert.deepEqual([metaDataOf(world), world.names()], ["two", ["files-1"]]);
});

test("a machine of a croft that did not note what was pinned is not restarted by the next one", async () => {
  const { world, daemon } = await begin();
  const pid = world.pid("files-1");
  daemon.kill();
  for (const { key, value } of await world.store.list<InstanceRecord>("instance/", world.call)) {
    const { pinned: _, ...older } = value;
    await world.store.put(key, older, "any", world.call);
  }
  const next = await world.boot();
  await next.pass(25_000);
  assert.equal((await next.up(withContent("one"))).status, "succeeded");
  assert.equal(world.pid("files-1"), pid);
});
