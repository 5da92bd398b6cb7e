import assert from "node:assert/strict";
import { it } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { type InstanceId, instanceId } from "../../base/id.ts";
import type { ProgramLaunch } from "../contract.ts";
import { engineContract } from "../contract-suite.ts";
import { plainProgram } from "../launch.fixture.ts";
import { breakInstance, MemoryEngine, MemoryWorld } from "./engine.ts";

function launchOf(id: InstanceId, change: Partial<ProgramLaunch> = {}): ProgramLaunch {
  return {
    id,
    ...plainProgram,
    root: { kind: "directory", path: "/nowhere" },
    attachment: { kind: "netns", path: "/nowhere", resolvers: [] },
    ...change,
  };
}

engineContract("memory", async () => {
  const world = new MemoryWorld();
  return {
    engine: () => new MemoryEngine(world),
    launch: async (id, change) => launchOf(id, change),
    dispose: async () => {},
  };
});

it("keeps what runs when the engine object is another one, and tells what is broken", async () => {
  const world = new MemoryWorld();
  const call = backgroundCall();
  const id = instanceId("suite", "web", 1, "0123abcd");
  await new MemoryEngine(world).create(launchOf(id));
  await new MemoryEngine(world).start(id, call);
  breakInstance(world, id);
  const [facts] = await new MemoryEngine(world).list();
  assert.equal(facts?.status, "running");
  assert.equal(facts?.intact, false);
  await new MemoryEngine(world).remove(id);
});

it("runs and removes ten thousand", async () => {
  const world = new MemoryWorld();
  const engine = new MemoryEngine(world);
  const call = backgroundCall();
  const ids = Array.from({ length: 10_000 }, (_, index) => instanceId("suite", "web", index + 1, "0123abcd"));
  for (const id of ids) {
    await engine.create(launchOf(id));
    await engine.start(id, call);
  }
  assert.equal((await engine.list()).filter(({ status }) => status === "running").length, ids.length);
  for (const id of ids) await engine.remove(id);
  assert.deepEqual(await engine.list(), []);
});
