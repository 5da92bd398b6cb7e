import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import { type InstanceId, type VolumeId, instanceId, sha256 } from "../../base/id.ts";
import { errnoOf } from "../../host/errno.ts";
import { listMounts, unmount } from "../../host/mount.ts";
import { run, stream } from "../../host/process.ts";
import type { LayerFile } from "../contract.ts";
import { OverlayPool } from "./pool.ts";

/**
 * A process that attaches, grows, clones and removes without end is killed at random moments; the next one must find
 * all of it, hand out nothing that is half made, and be able to take everything away.
 */

const call = backgroundCall();
const rounds = 15;
const seedFiles = 200;
const instances = [1, 2, 3].map((ordinal) => instanceId("shop", "web", ordinal, "0123abcd"));
const guests = [1, 2, 3].map((ordinal) => instanceId("shop", "guest", ordinal, "0123abcd"));
const plain = "shop.plain" as VolumeId;
const sized = "shop.sized" as VolumeId;
const copies = ["shop.copy"] as VolumeId[];
const mebibyte = 2 ** 20;

const churning = process.env["POOL_CHURN"];
if (churning === undefined) {
  test("pool overlay: killed at any moment, the next pass converges", converges);
} else {
  await churn(churning);
}

async function converges(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "crash."));
  try {
    const layers = await makeLayers(directory);
    const home = homeBeneath(join(directory, "home"));
    for (let round = 0; round < rounds; round += 1) {
      await killedChurn(directory, Math.random() * 400);
      const pool = new OverlayPool(home);
      await pool.list();
      for (const id of instances) await pool.attachRoot({ id, kind: "directory", layers, readOnly: false }, call);
      for (const id of guests) await assertMountable(pool, id);
      for (const id of [plain, sized, ...copies])
        assertWhole(await patiently(() => attachSeeded(pool, id, home.runDir)));
      for (const id of [...instances, ...guests]) await pool.removeRoot(id);
      for (const id of [plain, sized, ...copies]) await pool.removeVolume(id);
      assert.deepEqual(await pool.list(), { roots: [], volumes: [] });
      assert.deepEqual(listMounts(directory), []);
      for (const folder of ["roots", "volumes"]) assert.deepEqual(readdirSync(join(home.libDir, "pool", folder)), []);
      const left = readdirSync(join(home.runDir, "pool"), { recursive: true, withFileTypes: true });
      assert.deepEqual(
        left.filter((entry) => entry.isFile()),
        [],
      );
    }
  } finally {
    for (const { target } of listMounts(directory).toReversed()) await unmount(target, { detach: true });
    rmSync(directory, { recursive: true });
  }
}

async function makeLayers(directory: string): Promise<LayerFile[]> {
  const tree = join(directory, "tree");
  mkdirSync(join(tree, "data"), { recursive: true });
  for (let index = 0; index < seedFiles; index += 1) writeFileSync(join(tree, `data/${index}`), `content ${index}`);
  const path = join(directory, "layer");
  await run(["mkfs.erofs", "--quiet", path, tree], {}, call);
  return [{ digest: sha256(readFileSync(path)), path }];
}

/** Runs this file as the process that churns, until it is killed some time after its first pass began. */
async function killedChurn(directory: string, afterMs: number): Promise<void> {
  const program = [process.execPath, "--disable-warning=ExperimentalWarning", import.meta.filename];
  const child = stream(program, { env: { POOL_CHURN: directory } }, call);
  for await (const chunk of child.stdout) {
    assert.equal(String(chunk), "churning\n");
    break;
  }
  await call.clock.sleep(afterMs);
  child.kill("SIGKILL");
  assert.deepEqual(await child.exited, { code: null, signal: "SIGKILL" }, "it was still churning");
}

/** A disk that the killed process was growing cannot be mounted before that is done; the next passes try again. */
async function patiently<Result>(attach: () => Promise<Result>): Promise<Result> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await attach();
    } catch (error) {
      if (errnoOf(error) !== "EBUSY" || tries === 500) throw error;
      await call.clock.sleep(20);
    }
  }
}

function attachSeeded(pool: OverlayPool, id: VolumeId, runDir: string): Promise<{ readonly path: string }> {
  const rootPath = join(runDir, "pool/roots", instances[0] ?? "");
  const size = id === plain ? {} : { sizeBytes: 96 * mebibyte };
  return pool.attachVolume({ id, ...size, seed: { rootPath, path: "/data" } }, call);
}

function assertWhole({ path }: { readonly path: string }): void {
  assert.equal(readdirSync(path).length, seedFiles);
  for (let index = 0; index < seedFiles; index += 1) {
    assert.equal(readFileSync(join(path, String(index)), "utf8"), `content ${index}`);
  }
}

async function assertMountable(pool: OverlayPool, id: InstanceId): Promise<void> {
  const root = await pool.attachRoot({ id, kind: "block", layers: [], readOnly: false }, call);
  assert.ok(root.kind === "block" && root.writable !== undefined);
  await run(["e2fsck", "-f", "-n", root.writable], {}, call);
}

async function churn(directory: string): Promise<never> {
  const home = homeBeneath(join(directory, "home"));
  const path = join(directory, "layer");
  const layers = [{ digest: sha256(readFileSync(path)), path }];
  const pool = new OverlayPool(home);
  process.stdout.write("churning\n");
  for (let size = 1; ; size = (size % 4) + 1) {
    await Promise.all(instances.map((id) => pool.attachRoot({ id, kind: "directory", layers, readOnly: false }, call)));
    await Promise.all(guests.map((id) => pool.attachRoot({ id, kind: "block", layers, readOnly: false }, call)));
    await Promise.all([attachSeeded(pool, plain, home.runDir), growing(pool, home.runDir, size)]);
    for (const id of copies) await pool.clone.cloneVolume(sized, id, call);
    await Promise.all(instances.map((id, index) => (index === 1 ? pool.detachRoot(id) : pool.removeRoot(id))));
    for (const id of [plain, sized, ...copies]) await pool.removeVolume(id);
    await Promise.all(guests.map((id, index) => (index === 1 ? pool.detachRoot(id) : pool.removeRoot(id))));
  }
}

async function growing(pool: OverlayPool, runDir: string, size: number): Promise<void> {
  const seed = { rootPath: join(runDir, "pool/roots", instances[0] ?? ""), path: "/data" };
  for (const factor of [1, 2]) {
    try {
      await pool.attachVolume({ id: sized, sizeBytes: factor * size * 8 * mebibyte, seed }, call);
    } catch (error) {
      // What the last process left may be larger already.
      if (!isFault(error, "precondition")) throw error;
    }
  }
}
