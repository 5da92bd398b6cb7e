import assert from "node:assert/strict";
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { closeSync, lstatSync, openSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { type Home, homeBeneath } from "../../base/home.ts";
import { type VolumeId, instanceId, sha256 } from "../../base/id.ts";
import { findLoopDevice } from "../../host/loop.ts";
import { listMounts, unmount } from "../../host/mount.ts";
import { run } from "../../host/process.ts";
import { poolContract } from "../contract-suite.ts";
import type { CloneFacet, LayerFile, Pool } from "../contract.ts";
import { OverlayPool } from "./pool.ts";

const call = backgroundCall();
const web = instanceId("shop", "web", 1, "0123abcd");
const other = instanceId("shop", "web", 2, "0123abcd");
const data = "shop.data" as VolumeId;
const copy = "shop.copy" as VolumeId;
const mebibyte = 2 ** 20;

interface Trial {
  readonly directory: string;
  readonly home: Home;
  readonly pool: Pool & { readonly clone: CloneFacet };
  readonly layers: readonly LayerFile[];
  dispose(): Promise<void>;
}

/** A home of its own, and two real layers: the lower brings `etc/` and `srv/`, the upper changes and adds. */
async function trial(): Promise<Trial> {
  const directory = mkdtempSync(join(tmpdir(), "pool."));
  const lower = await layer(directory, "lower", (root) => {
    mkdirSync(join(root, "etc"));
    writeFileSync(join(root, "etc/name"), "lower");
    mkdirSync(join(root, "srv/data"), { recursive: true });
    writeFileSync(join(root, "srv/data/seeded"), "from the image");
    symlinkSync("/etc/name", join(root, "srv/data/link"));
    chownSync(join(root, "srv/data"), 33, 44);
    chmodSync(join(root, "srv/data"), 0o2770);
    symlinkSync("/srv/data", join(root, "inside"));
    symlinkSync("../../../../../../etc", join(root, "outside"));
  });
  const upper = await layer(directory, "upper", (root) => {
    mkdirSync(join(root, "etc"));
    writeFileSync(join(root, "etc/name"), "upper");
    chmodSync(root, 0o751);
  });
  const home = homeBeneath(join(directory, "home"));
  return {
    directory,
    home,
    pool: new OverlayPool(home),
    layers: [lower, upper],
    async dispose() {
      for (const { target } of listMounts(directory).toReversed()) await unmount(target, { detach: true });
      rmSync(directory, { recursive: true });
    },
  };
}

async function layer(directory: string, name: string, fill: (root: string) => void): Promise<LayerFile> {
  const root = join(directory, "trees", name);
  mkdirSync(root, { recursive: true });
  fill(root);
  const path = join(directory, `${name}.erofs`);
  await run(["mkfs.erofs", "--quiet", path, root], {}, call);
  return { digest: sha256(readFileSync(path)), path };
}

function exhausted(error: unknown): boolean {
  return isFault(error, "exhausted");
}

function scenario(what: string, body: (trial: Trial) => Promise<void>): void {
  test(`pool overlay: ${what}`, async () => {
    const made = await trial();
    try {
      await body(made);
    } finally {
      await made.dispose();
    }
  });
}

async function rootPath({ pool, layers }: Trial, id = web): Promise<string> {
  const root = await pool.attachRoot({ id, kind: "directory", layers, readOnly: false }, call);
  assert.ok(root.kind === "directory");
  return root.path;
}

poolContract("overlay", trial);

scenario("the upper layer covers the lower, and what is written survives detaching", async (trial) => {
  const root = await rootPath(trial);
  assert.equal(readFileSync(join(root, "etc/name"), "utf8"), "upper");
  assert.equal(readFileSync(join(root, "srv/data/seeded"), "utf8"), "from the image");
  assert.equal(statSync(root).mode & 0o7777, 0o751, "the root has the mode that the image gives it");
  writeFileSync(join(root, "etc/name"), "written");
  await trial.pool.detachRoot(web, call);
  await rootPath(trial);
  assert.equal(readFileSync(join(root, "etc/name"), "utf8"), "written");
  await trial.pool.removeRoot(web, call);
  await rootPath(trial);
  assert.equal(readFileSync(join(root, "etc/name"), "utf8"), "upper");
});

scenario("programs run in a root, setuid included, and devices do not open", async (trial) => {
  const root = await rootPath(trial);
  await run(["cp", "/usr/bin/id", root], {}, call);
  chmodSync(join(root, "id"), 0o4755);
  assert.match(listMounts(root)[0]?.options ?? "", /nodev/);
  // From within, as the way to a root is closed to all but root.
  const who = ["setpriv", "--reuid=65534", "--clear-groups", "./id", "--user"];
  assert.equal((await run(who, { cwd: root }, call)).stdout, "0\n");
  await run(["mknod", join(root, "zero"), "c", "1", "5"], {}, call);
  assert.throws(() => readFileSync(join(root, "zero")), { code: "EACCES" });
});

scenario("a layer is mounted once, and no longer than a root needs it", async (trial) => {
  const layerMounts = (): number => listMounts(join(trial.home.runDir, "pool/layers")).length;
  await rootPath(trial);
  await rootPath(trial, other);
  assert.equal(layerMounts(), 2);
  await trial.pool.detachRoot(web, call);
  assert.equal(layerMounts(), 2);
  await trial.pool.removeRoot(other, call);
  assert.equal(layerMounts(), 0);
  assert.deepEqual(listMounts(trial.directory), []);
});

scenario("sixty layers are one root", async (trial) => {
  const layers: LayerFile[] = [];
  for (let index = 0; index < 60; index += 1) {
    layers.push(await layer(trial.directory, `many-${index}`, (root) => writeFileSync(join(root, `f${index}`), "")));
  }
  const root = await trial.pool.attachRoot({ id: web, kind: "directory", layers, readOnly: false }, call);
  assert.ok(root.kind === "directory");
  assert.equal(readdirSync(root.path).length, 60);
  await trial.pool.removeRoot(web, call);
  assert.deepEqual(listMounts(trial.directory), []);
});

scenario("another daemon finds what the first one attached, and ends it", async (trial) => {
  await rootPath(trial);
  await trial.pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
  const next: Pool = new OverlayPool(trial.home);
  assert.deepEqual(await next.list(call), await trial.pool.list(call));
  await next.removeRoot(web, call);
  await next.removeVolume(data, call);
  assert.deepEqual(await next.list(call), { roots: [], volumes: [] });
  assert.deepEqual(listMounts(trial.directory), []);
});

scenario("whatever an interruption leaves is listed, and attaching or removing completes it", async (trial) => {
  const { home } = trial;
  const root = await rootPath(trial);
  writeFileSync(join(root, "half"), "");
  await trial.pool.detachRoot(web, call);
  await run(["mv", join(home.libDir, "pool/roots", web), join(home.libDir, "pool/roots", `${web}~removed`)], {}, call);
  mkdirSync(join(home.libDir, "pool/volumes", `${data}~new`), { recursive: true });
  mkdirSync(join(home.runDir, "pool/volumes", data), { recursive: true });
  mkdirSync(join(home.runDir, "pool/layers", sha256("orphan")), { recursive: true });
  const pool: Pool = new OverlayPool(home);
  const facts = await pool.list(call);
  assert.deepEqual(facts.roots, [{ id: web, attached: false }]);
  assert.deepEqual(
    facts.volumes.map(({ id, attached }) => [id, attached]),
    [[data, false]],
  );
  await rootPath({ ...trial, pool: new OverlayPool(home) });
  assert.ok(!existsSync(join(root, "half")), "a half-removed root is not taken up again");
  await pool.attachVolume({ id: data }, call);
  await pool.removeRoot(web, call);
  await pool.removeVolume(data, call);
  assert.deepEqual(await pool.list(call), { roots: [], volumes: [] });
  assert.deepEqual(readdirSync(join(home.runDir, "pool/layers")), []);
});

scenario("a new volume takes over what the image has there, and only once", async (trial) => {
  const seed = { rootPath: await rootPath(trial), path: "/inside" };
  const { path } = await trial.pool.attachVolume({ id: data, seed }, call);
  const { mode, uid, gid } = statSync(path);
  assert.deepEqual([mode & 0o7777, uid, gid], [0o2770, 33, 44]);
  assert.ok(lstatSync(join(path, "link")).isSymbolicLink(), "a link stays a link");
  writeFileSync(join(path, "seeded"), "changed");
  await trial.pool.detachVolume(data, call);
  await trial.pool.attachVolume({ id: data, seed }, call);
  assert.equal(readFileSync(join(path, "seeded"), "utf8"), "changed");
});

scenario("a seed that is a link out of the root brings what is within", async (trial) => {
  const seed = { rootPath: await rootPath(trial), path: "/outside" };
  const { path } = await trial.pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte, seed }, call);
  assert.deepEqual(readdirSync(path), ["name"]);
  assert.equal(readFileSync(join(path, "name"), "utf8"), "upper");
});

scenario("a seed that is not there, or a file, brings nothing", async (trial) => {
  const rootOf = await rootPath(trial);
  const missing = await trial.pool.attachVolume({ id: data, seed: { rootPath: rootOf, path: "/nowhere" } }, call);
  assert.deepEqual(readdirSync(missing.path), []);
  const file = await trial.pool.attachVolume({ id: copy, seed: { rootPath: rootOf, path: "/etc/name" } }, call);
  assert.deepEqual(readdirSync(file.path), []);
});

scenario("a volume with a size is empty, holds no more than that, and grows while in use", async ({ pool }) => {
  const { path } = await pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
  assert.deepEqual(readdirSync(path), []);
  const fill = (): void => writeFileSync(join(path, "big"), Buffer.alloc(20 * mebibyte));
  assert.throws(fill, { code: "ENOSPC" });
  await pool.attachVolume({ id: data, sizeBytes: 64 * mebibyte }, call);
  fill();
  const [facts] = (await pool.list(call)).volumes;
  assert.ok((facts?.usedBytes ?? 0) > 20 * mebibyte);
});

scenario("a growth that was interrupted after the file grew is completed", async ({ pool, home }) => {
  const { path } = await pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
  truncateSync(join(home.libDir, "pool/volumes", data, "disk.ext4"), 64 * mebibyte);
  await pool.attachVolume({ id: data, sizeBytes: 64 * mebibyte }, call);
  writeFileSync(join(path, "big"), Buffer.alloc(40 * mebibyte));
});

scenario("a disk that someone still uses is never mounted by a second device", async ({ pool, home }) => {
  const { path } = await pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
  writeFileSync(join(path, "kept"), "x");
  const disk = join(home.libDir, "pool/volumes", data, "disk.ext4");
  const device = findLoopDevice(disk);
  const held = openSync(join(path, "kept"), "r");
  await pool.detachVolume(data, call);
  assert.equal(findLoopDevice(disk), device, "the device lives as long as its user");
  await pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
  assert.equal(findLoopDevice(disk), device);
  assert.equal(readFileSync(join(path, "kept"), "utf8"), "x");
  closeSync(held);
});

scenario("a clone has the content and is apart from its source", async ({ pool }) => {
  const source = await pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte }, call);
  writeFileSync(join(source.path, "file"), "original");
  await pool.clone.cloneVolume(data, copy, call);
  writeFileSync(join(source.path, "file"), "changed");
  const cloned = await pool.attachVolume({ id: copy }, call);
  assert.equal(readFileSync(join(cloned.path, "file"), "utf8"), "original");
});

test("pool overlay: on a full disk everything is refused as exhausted, and nothing stays behind", async () => {
  const made = await trial();
  const full = join(made.directory, "full");
  try {
    mkdirSync(full);
    await run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=60", "tmpfs", full], {}, call);
    const home = { ...homeBeneath(full), runDir: made.home.runDir };
    const pool: Pool = new OverlayPool(home);
    const rootOf = await rootPath(made);
    mkdirSync(join(rootOf, "much"));
    writeFileSync(join(rootOf, "much/content"), Buffer.alloc(20 * mebibyte));
    const seed = { rootPath: rootOf, path: "/much" };
    await assert.rejects(pool.attachVolume({ id: data, seed }, call), exhausted);
    assert.deepEqual((await pool.list(call)).volumes, []);
    await assert.rejects(pool.attachVolume({ id: data, sizeBytes: 16 * mebibyte, seed }, call), exhausted);
    assert.deepEqual((await pool.list(call)).volumes, []);
    for (let left = 60; left > 0; left -= 1) {
      try {
        writeFileSync(join(full, `inode-${left}`), "");
      } catch {
        break;
      }
    }
    await assert.rejects(
      pool.attachRoot({ id: other, kind: "directory", layers: made.layers, readOnly: false }, call),
      exhausted,
    );
    await assert.rejects(pool.attachVolume({ id: data }, call), exhausted);
    assert.deepEqual(
      (await pool.list(call)).roots.map(({ id }) => id),
      [web],
      "only the root that the test itself made",
    );
    assert.deepEqual(
      readdirSync(full).filter((name) => !name.startsWith("inode-")),
      ["lib"],
    );
  } finally {
    await made.dispose();
  }
});
