import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../base/fault.ts";
import type { InstanceId, NetworkId } from "../base/id.ts";
import type { InstanceSection, StackSpec } from "../stack/model.ts";
import { runOf, stackOf, submit, World, type Daemon } from "./world.fixture.ts";

const networks = { default: { internal: false }, back: { internal: true } };
const onData: InstanceSection["mounts"] = [{ kind: "volume", volume: "data", destination: "/data", readOnly: false }];

function sized(sizeBytes: number): StackSpec {
  return stackOf({ web: { mounts: onData } }, { volumes: { data: { sizeBytes, protect: false } } });
}

async function begin(): Promise<{ world: World; daemon: Daemon }> {
  const world = new World();
  return { world, daemon: await world.boot() };
}

async function run(daemon: Daemon, name: string, section: Partial<InstanceSection>): Promise<void> {
  const request = runOf({ name });
  await daemon.during(
    daemon.instances.run({ ...request, section: { ...request.section, ...section } }, daemon.world.call),
  );
}

/** Somebody whom no daemon knows is on a network. */
function squat(world: World, network: string): () => void {
  const id = "other.web.1.00000000" as InstanceId;
  const nics = [{ network: network as NetworkId, address: "10.86.0.99", names: [] }];
  world.host.ports.set(id, { id, kind: "netns", hostname: "other", nics });
  return () => void world.host.ports.delete(id);
}

test("a network that a run is on is not taken from under it, and the run is named", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { networks: ["back"] } }, { networks }));
  await run(daemon, "guest", { networks: ["shop/back"] });
  await assert.rejects(daemon.down("shop"), {
    reason: "precondition",
    message: /network back: it would be removed, but guest uses it/,
    hint: /croft rm --force guest/,
  });
  const without = stackOf({ web: { networks: ["default"] } });
  const preview = await daemon.stacks.preview(submit(without), { pruneVolumes: false }, world.call);
  assert.deepEqual(
    preview.plan.refusals.map(({ subject }) => subject),
    ["network back"],
  );
  await assert.rejects(daemon.up(without), { message: /network back: it would be removed, but guest uses it/ });
  assert.deepEqual(world.names(), ["guest-1", "web-1"]);
  await daemon.during(daemon.instances.remove(world.id("guest-1"), true, world.call));
  assert.equal((await daemon.up(without)).status, "succeeded");
  assert.equal((await daemon.down("shop")).status, "succeeded");
});

test("volumes of runs are not deleted beneath them", async () => {
  const { world, daemon } = await begin();
  await run(daemon, "first", {});
  await run(daemon, "second", { networks: [], mounts: onData });
  await daemon.during(daemon.instances.remove(world.id("first-1"), true, world.call));
  await assert.rejects(daemon.down("run", true), {
    reason: "precondition",
    message: /volume data: it would be removed, but second uses it/,
  });
  assert.deepEqual((await world.remains())["volumes"], ["run.data"]);
  await daemon.during(daemon.instances.remove(world.id("second-1"), true, world.call));
  assert.equal((await daemon.down("run", true)).status, "succeeded");
  assert.deepEqual((await world.remains())["volumes"], []);
});

test("a removal that cannot end says so while it tries, and gives up waiting in time", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: {} }));
  const leave = squat(world, "shop.default");
  const { id } = await daemon.down("shop", false, 5000);
  const { status, progress } = await daemon.operations.get(id);
  assert.equal(status, "running");
  assert.match(
    progress.find(({ topic }) => topic === "network shop/default")?.state ?? "",
    /^failed: remove network shop.default: instance other.web.1.00000000 is attached/,
  );
  await daemon.pass(60_000);
  assert.match((await daemon.operations.get(id)).fault?.message ?? "", /stack shop is not gone yet: remove-network/);
  leave();
  assert.equal((await daemon.down("shop")).status, "succeeded");
  assert.deepEqual((await world.remains())["networks"], []);
});

test("a generation whose volume cannot be had goes back in time", async () => {
  const { world, daemon } = await begin();
  await daemon.up(sized(1 << 20));
  const attach = world.pool.attachVolume.bind(world.pool);
  world.pool.attachVolume = async (spec, call) => {
    if (spec.sizeBytes === 2 << 20) throw new Fault("exhausted", "the disk is full");
    return await attach(spec, call);
  };
  const failed = await daemon.up(sized(2 << 20), 60_000);
  assert.equal(failed.fault?.reason, "unhealthy");
  assert.match(failed.fault?.message ?? "", /resize-volume shop.data: the disk is full/);
  assert.equal(daemon.stacks.get("shop").generation, 1);
});

test("a network that cannot be made fails the first generation, too", async () => {
  const { world, daemon } = await begin();
  const set = world.host.networks.set.bind(world.host.networks);
  world.host.networks.set = () => {
    throw new Fault("failed", "no bridge today");
  };
  const failed = await daemon.up(stackOf({ web: {} }), 60_000);
  assert.match(failed.fault?.message ?? "", /create-network shop.default: no bridge today/);
  world.host.networks.set = set;
  await daemon.pass(40_000);
  assert.deepEqual(world.names(), ["web-1"]);
});

test("a volume that was to be deleted and cannot be is told by up", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { mounts: onData } }, { volumes: { data: { protect: false } } }));
  world.pool.removeVolume = async (id) => {
    throw new Fault("failed", `volume ${id} is busy`);
  };
  const { fault, progress } = await daemon.up(stackOf({ web: {} }), 60_000, { pruneVolumes: true });
  assert.match(
    fault?.message ?? "",
    /generation 2 of shop is live, but not all is as it says: remove-volume shop.data/,
  );
  assert.equal(progress.find(({ topic }) => topic === "volume shop/data")?.state, "failed: volume shop.data is busy");
  assert.deepEqual(world.names(), ["web-1"]);
});
