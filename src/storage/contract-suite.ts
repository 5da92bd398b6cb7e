import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall, systemClock } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { type InstanceId, type VolumeId, instanceId } from "../base/id.ts";
import type { LayerFile, Pool, Root, RootSpec } from "./contract.ts";

/** A fresh pool, two layers that it can attach (lowest first), and the way to take all of it away again. */
export interface PoolUnderTest {
  readonly pool: Pool;
  readonly layers: readonly LayerFile[];
  dispose(): Promise<void>;
}

/** What every pool keeps, whatever it is made of. What is inside roots and volumes is tested beside each driver. */
export function poolContract(name: string, make: () => Promise<PoolUnderTest>): void {
  const call = backgroundCall();
  const web = instanceId("shop", "web", 1, "0123abcd");
  const other = instanceId("shop", "web", 2, "0123abcd");
  const data = "shop.data" as VolumeId;
  const copy = "shop.copy" as VolumeId;
  const mebibyte = 2 ** 20;

  const behaviour = (what: string, body: (under: PoolUnderTest) => Promise<void>): void => {
    void test(`pool ${name}: ${what}`, async () => {
      const under = await make();
      try {
        await body(under);
      } finally {
        await under.dispose();
      }
    });
  };

  behaviour("works on this host, and is empty", async ({ pool }) => {
    const probe = await pool.probe(call);
    assert.ok(probe.ok, probe.detail);
    assert.deepEqual(await pool.list(call), { roots: [], volumes: [] });
  });

  /** For both kinds of roots. */
  const rootBehaviour = (what: string, body: (under: PoolUnderTest, kind: Root["kind"]) => Promise<void>): void => {
    for (const kind of ["directory", "block"] as const) {
      behaviour(`${what} (${kind})`, (under) => body(under, kind));
    }
  };

  rootBehaviour("a root is attached, detached and removed, each as often as one likes", async (under, kind) => {
    const { pool, layers } = under;
    const spec: RootSpec = { id: web, kind, layers, readOnly: false };
    const root = await pool.attachRoot(spec, call);
    assert.equal(root.kind, kind);
    assert.deepEqual(await pool.attachRoot(spec, call), root);
    assert.deepEqual(await rootsOf(pool), [[web, true]]);
    await pool.detachRoot(web, call);
    await pool.detachRoot(web, call);
    assert.deepEqual(await rootsOf(pool), [[web, false]]);
    assert.deepEqual(await pool.attachRoot(spec, call), root);
    await pool.removeRoot(web, call);
    await pool.removeRoot(web, call);
    assert.deepEqual(await rootsOf(pool), []);
  });

  rootBehaviour("roots that share layers do not depend on each other", async ({ pool, layers }, kind) => {
    const ids = [web, other];
    const roots = await Promise.all(ids.map((id) => pool.attachRoot({ id, kind, layers, readOnly: false }, call)));
    assert.notDeepEqual(roots[0], roots[1]);
    await pool.removeRoot(web, call);
    assert.deepEqual(await rootsOf(pool), [[other, true]]);
  });

  rootBehaviour("an image without layers has a root", async ({ pool }, kind) => {
    await pool.attachRoot({ id: web, kind, layers: [], readOnly: false }, call);
    assert.deepEqual(await rootsOf(pool), [[web, true]]);
  });

  behaviour("a block root hands back the layers, and a writable file unless it is read-only", async (under) => {
    const { pool, layers } = under;
    const root = await pool.attachRoot({ id: web, kind: "block", layers, readOnly: false }, call);
    assert.ok(root.kind === "block");
    assert.deepEqual(root.layers, layers);
    assert.equal(typeof root.writable, "string");
    const sealed = await pool.attachRoot({ id: other, kind: "block", layers, readOnly: true }, call);
    assert.deepEqual(sealed, { kind: "block", layers });
    assert.deepEqual(await rootsOf(pool), [
      [web, true],
      [other, true],
    ]);
    await pool.removeRoot(other, call);
    assert.deepEqual(await rootsOf(pool), [[web, true]]);
  });

  behaviour("a directory that was attached to look into the image gives way to the block root", async (under) => {
    const { pool, layers } = under;
    const spec = { id: web, layers, readOnly: false };
    await pool.attachRoot({ ...spec, kind: "directory" }, call);
    const root = await pool.attachRoot({ ...spec, kind: "block" }, call);
    assert.equal(root.kind, "block");
    assert.deepEqual(await rootsOf(pool), [[web, true]]);
    await pool.attachRoot({ ...spec, kind: "directory" }, call);
    assert.deepEqual(await pool.attachRoot({ ...spec, kind: "block" }, call), root, "it is the same one");
    await pool.detachRoot(web, call);
    assert.deepEqual(await rootsOf(pool), [[web, false]]);
    await pool.removeRoot(web, call);
    assert.deepEqual(await rootsOf(pool), []);
  });

  behaviour("what is not there is detached and removed at once", async ({ pool }) => {
    await pool.detachRoot(web, call);
    await pool.removeRoot(web, call);
    await pool.detachVolume(data, call);
    await pool.removeVolume(data, call);
    assert.deepEqual(await pool.list(call), { roots: [], volumes: [] });
  });

  behaviour("a volume stays where it is until it is removed", async ({ pool }) => {
    const first = await pool.attachVolume({ id: data }, call);
    assert.equal(first.quota, false);
    assert.deepEqual(await pool.attachVolume({ id: data }, call), first);
    await pool.detachVolume(data, call);
    assert.equal((await pool.list(call)).volumes.length, 1);
    assert.deepEqual(await pool.attachVolume({ id: data }, call), first);
    const [facts] = (await pool.list(call)).volumes;
    assert.deepEqual(facts, { id: data, attached: true, path: first.path });
    await pool.removeVolume(data, call);
    await pool.removeVolume(data, call);
    assert.deepEqual((await pool.list(call)).volumes, []);
  });

  behaviour("many who ask for one volume at once get the same", async ({ pool }) => {
    const asked = Array.from({ length: 5 }, () => pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call));
    const answers = await Promise.all(asked);
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
    assert.equal((await pool.list(call)).volumes.length, 1);
  });

  behaviour("a volume grows and does not shrink", async ({ pool }) => {
    await pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
    await pool.attachVolume({ id: data, sizeBytes: 32 * mebibyte }, call);
    const shrinking = pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
    await assert.rejects(shrinking, (error) => isFault(error, "precondition"));
    const grown = await pool.attachVolume({ id: data, sizeBytes: 32 * mebibyte }, call);
    assert.equal(grown.quota, true);
    assert.equal((await pool.list(call)).volumes[0]?.sizeBytes, 32 * mebibyte);
    // Who says no size does not ask for a smaller one.
    assert.deepEqual(await pool.attachVolume({ id: data }, call), grown);
  });

  rootBehaviour("a cancelled call makes nothing", async ({ pool, layers }, kind) => {
    const cancelled = backgroundCall(systemClock, AbortSignal.abort());
    const root = pool.attachRoot({ id: web, kind, layers, readOnly: false }, cancelled);
    await assert.rejects(root, (error) => isFault(error, "cancelled"));
    const volume = pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, cancelled);
    await assert.rejects(volume, (error) => isFault(error, "cancelled"));
    assert.deepEqual(await pool.list(call), { roots: [], volumes: [] });
  });

  behaviour("a clone, where there is one, is a volume of its own and made once", async ({ pool }) => {
    if (pool.clone === undefined) return;
    await assert.rejects(pool.clone.cloneVolume(data, copy, call), (error) => isFault(error, "not-found"));
    await pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
    await pool.clone.cloneVolume(data, copy, call);
    await pool.clone.cloneVolume(data, copy, call);
    await pool.removeVolume(data, call);
    const { volumes } = await pool.list(call);
    assert.deepEqual(
      volumes.map(({ id, sizeBytes }) => [id, sizeBytes]),
      [[copy, 16 * mebibyte]],
    );
  });
}

async function rootsOf(pool: Pool): Promise<(readonly [InstanceId, boolean])[]> {
  const { roots } = await pool.list(backgroundCall());
  return roots.map(({ id, attached }) => [id, attached] as const).sort(([left], [right]) => (left < right ? -1 : 1));
}
