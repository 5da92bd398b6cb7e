import assert from "node:assert/strict";
import { test } from "node:test";
import { check, stackOf, World } from "./world.fixture.ts";

test("up brings everything to run, and the same again touches nothing", async () => {
  const world = new World();
  const daemon = await world.boot();
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
});
