import assert from "node:assert/strict";
import { test } from "node:test";
import type { VolumeId } from "../base/id.ts";
import type { InstanceSection } from "../stack/model.ts";
import { check, machine, stackOf, World, type Daemon } from "./world.fixture.ts";

const quick = { order: "stop-first", healthyWithinMs: 3000 } as const;
const onVolume = (volume: string): InstanceSection["mounts"] => [
  { kind: "volume", volume, destination: "/data", readOnly: false },
];
const sickly = { health: check, image: "app:2", update: quick };

async function begin(): Promise<{ world: World; daemon: Daemon }> {
  const world = new World();
  return { world, daemon: await world.boot() };
}

/** Volumes and disks that are deleted from now on, in order: one that is there afterwards may be a new and empty one. */
function deletions(world: World): readonly string[] {
  const seen: string[] = [];
  const { pool } = world;
  const removeVolume = pool.removeVolume.bind(pool);
  const removeDisk = pool.disks.removeDisk.bind(pool.disks);
  pool.removeVolume = async (id) => {
    seen.push(id);
    await removeVolume(id);
  };
  pool.disks.removeDisk = async (id, name, call) => {
    seen.push(`${id}/${name}`);
    await removeDisk(id, name, call);
  };
  return seen;
}

async function volumesOf(world: World): Promise<readonly string[] | undefined> {
  return (await world.remains())["volumes"];
}

test("what a failed generation no longer protected is protected again", async () => {
  const { world, daemon } = await begin();
  const web = { mounts: onVolume("db") };
  await daemon.up(stackOf({ web }, { volumes: { db: { protect: true } } }));
  world.sick.add("web");
  const failed = await daemon.up(
    stackOf({ web: { ...web, ...sickly } }, { volumes: { db: { protect: false } } }),
    9000,
  );
  assert.equal(failed.fault?.reason, "unhealthy");
  await assert.rejects(daemon.down("shop", true), { reason: "protected" });
  assert.equal((await daemon.down("shop")).status, "succeeded");
  await assert.rejects(daemon.stacks.removeVolume("shop.db" as VolumeId, world.call), { reason: "protected" });
});

test("a generation that fails has deleted nothing of what it dropped", async () => {
  const { world, daemon } = await begin();
  const volumes = { data: { protect: false } };
  await daemon.up(stackOf({ web: { mounts: onVolume("data") } }, { volumes }));
  const deleted = deletions(world);
  world.sick.add("web");
  const failed = await daemon.up(stackOf({ web: sickly }), 9000, { pruneVolumes: true });
  assert.equal(failed.fault?.reason, "unhealthy");
  await daemon.pass(25_000);
  assert.deepEqual([world.names(), deleted], [["web-1"], []]);
});

test("what an earlier generation left is not deleted by the way back from a generation that asked for it", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { mounts: onVolume("old") } }, { volumes: { old: { protect: false } } }));
  await daemon.up(stackOf({ web: {} }));
  assert.deepEqual(await volumesOf(world), ["shop.old"]);
  world.sick.add("web");
  const volumes = { old: { protect: false } };
  const failed = await daemon.up(stackOf({ web: { ...sickly, mounts: onVolume("old") } }, { volumes }), 9000, {
    pruneVolumes: true,
  });
  assert.equal(failed.fault?.reason, "unhealthy");
  await daemon.pass(25_000);
  assert.deepEqual(await volumesOf(world), ["shop.old"]);
});

test("disks that a failed generation dropped are there after the way back", async () => {
  const { world, daemon } = await begin();
  const root = { name: "root", from: { kind: "image", image: "debian.qcow2" } } as const;
  const data = { name: "data", from: { kind: "blank" }, sizeBytes: 1 << 20 } as const;
  await daemon.up(stackOf({ files: machine({ disks: [root, data] }), web: {} }));
  const deleted = deletions(world);
  world.sick.add("web");
  const spec = stackOf({ files: machine({ disks: [root] }), web: sickly });
  const failed = await daemon.up(spec, 9000, { pruneVolumes: true });
  assert.equal(failed.fault?.reason, "unhealthy");
  await daemon.pass(25_000);
  assert.deepEqual(deleted, []);
});

test("up waits until what it was asked to delete is deleted", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { mounts: onVolume("data") } }, { volumes: { data: { protect: false } } }));
  const going = await daemon.up(stackOf({ web: { health: check, image: "app:2" } }), 9000, { pruneVolumes: true });
  assert.equal(going.status, "succeeded");
  assert.deepEqual(await volumesOf(world), []);
});

test("a rollback to what is sick tells so, with the last log lines, and the stack is back where it was", async () => {
  const { world, daemon } = await begin();
  world.programs.set("app:1", ["/bin/sh", "-c", "echo no database; sleep 1000"]);
  const healthy = { health: check, update: quick };
  await daemon.up(stackOf({ web: healthy }));
  await daemon.up(stackOf({ web: { image: "app:2" } }));
  world.sick.add("web");
  for (const _ of ["once", "and once more"]) {
    const { fault } = await daemon.follow(await daemon.stacks.rollback("shop", 1, "tester", world.call), 9000);
    assert.equal(fault?.reason, "unhealthy");
    assert.match(fault.message, /web is unhealthy: [^]*last log lines:\n {2}no database/);
    assert.match(fault.message, /shop is back at generation 2/);
  }
  assert.equal(daemon.stacks.get("shop").generation, 2);
  const history = await daemon.stacks.generations("shop", world.call);
  assert.deepEqual(
    history.map(({ number, status }) => `${number} ${status}`),
    ["2 live", "1 failed"],
  );
});

test("an apply that a rollback overtakes is overtaken, not sick", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: {} }));
  world.sick.add("web");
  const going = await daemon.up(stackOf({ web: { image: "app:2", health: { ...check, intervalMs: 9000 } } }), 0);
  assert.equal(going.status, "running");
  const back = await daemon.follow(await daemon.stacks.rollback("shop", 1, "tester", world.call), 9000);
  assert.equal(back.status, "succeeded");
  assert.equal((await daemon.operations.get(going.id)).fault?.reason, "conflict");
});
