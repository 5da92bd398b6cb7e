import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { closeSync, openSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { TestClock } from "../../base/test-clock.ts";
import { homeBeneath } from "../../base/home.ts";
import { instanceId } from "../../base/id.ts";
import { listMounts, unmount } from "../../host/mount.ts";
import { run } from "../../host/process.ts";
import { OverlayPool } from "./pool.ts";

const call = backgroundCall();
const web = instanceId("shop", "web", 1, "0123abcd");
const other = instanceId("shop", "web", 2, "0123abcd");

interface Trial {
  readonly directory: string;
  pool: OverlayPool;
  /** Another daemon on the same host. */
  restart(): OverlayPool;
  /** The machine starts again: what is in `run` has gone. */
  reboot(): OverlayPool;
}

function scenario(what: string, body: (trial: Trial) => Promise<void>): void {
  test(`block roots: ${what}`, async () => {
    const directory = mkdtempSync(join(tmpdir(), "block."));
    const home = homeBeneath(join(directory, "home"));
    const trial: Trial = {
      directory,
      pool: new OverlayPool(home),
      restart: () => (trial.pool = new OverlayPool(home)),
      reboot() {
        rmSync(home.runDir, { recursive: true });
        return trial.restart();
      },
    };
    try {
      await body(trial);
    } finally {
      for (const { target } of listMounts(directory).toReversed()) await unmount(target, { detach: true });
      rmSync(directory, { recursive: true });
    }
  });
}

async function attach(pool: OverlayPool, id = web, ownerUid = 0): Promise<string> {
  const root = await pool.attachRoot({ id, kind: "block", layers: [], readOnly: false, ownerUid }, call);
  assert.ok(root.kind === "block" && root.writable !== undefined);
  return root.writable;
}

async function until(isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries += 1) {
    assert.ok(tries < 1000, "it never came to that");
    await call.clock.sleep(10);
  }
}

/** What a guest does with it: mounts it as ext4 and works in it. */
async function inside<Result>(trial: Trial, disk: string, work: (path: string) => Result): Promise<Result> {
  const target = join(trial.directory, "guest");
  mkdirSync(target, { recursive: true });
  await run(["mount", "-o", "loop", disk, target], {}, call);
  try {
    return work(target);
  } finally {
    await run(["umount", target], {}, call);
  }
}

async function check(disk: string): Promise<void> {
  await run(["e2fsck", "-f", "-n", disk], {}, call);
}

scenario("a guest can write much more to it than it takes at first", async (trial) => {
  const disk = await attach(trial.pool);
  await check(disk);
  const { size, blocks } = statSync(disk);
  assert.equal(size, 64 * 2 ** 30);
  assert.ok(blocks * 512 < 2 ** 20, `${blocks * 512} bytes`);
  await inside(trial, disk, (path) => {
    assert.deepEqual(readdirSync(path), ["lost+found"]);
    writeFileSync(join(path, "file"), Buffer.alloc(8 * 2 ** 20, 1));
  });
  await check(disk);
  const [facts] = (await trial.pool.list()).roots;
  assert.ok((facts?.usedBytes ?? 0) > 8 * 2 ** 20);
});

scenario("the kernel does not fill it with zeros behind our back", async (trial) => {
  const disk = await attach(trial.pool);
  const { stdout } = await run(["dumpe2fs", disk], {}, call);
  const groups = stdout.match(/^Group [0-9]+:/gm)?.length ?? 0;
  assert.ok(groups > 100);
  assert.equal(stdout.match(/ITABLE_ZEROED/g)?.length, groups);
});

scenario(
  "what was written stays through detaching, another daemon and a reboot, and goes with the root",
  async (trial) => {
    const disk = await attach(trial.pool);
    await inside(trial, disk, (path) => writeFileSync(join(path, "kept"), "x"));
    await trial.pool.detachRoot(web);
    for (const pool of [trial.pool, trial.restart(), trial.reboot()]) {
      assert.equal(await attach(pool), disk);
      assert.equal(await inside(trial, disk, (path) => readFileSync(join(path, "kept"), "utf8")), "x");
    }
    await trial.pool.removeRoot(web);
    assert.ok(!existsSync(disk));
    await attach(trial.pool);
    assert.ok(await inside(trial, disk, (path) => !existsSync(join(path, "kept"))));
  },
);

scenario("its owner may open it, and becomes another when asked for", async ({ pool, directory }) => {
  const disk = await attach(pool, web, 4711);
  assert.deepEqual([statSync(disk).uid, statSync(disk).mode & 0o777], [4711, 0o600]);
  assert.equal(await attach(pool, web, 4712), disk);
  assert.equal(statSync(disk).uid, 4712);
  // The way to it is closed to all but root; an engine passes the file itself on.
  assert.equal(statSync(join(directory, "home/lib/pool")).mode & 0o077, 0);
});

scenario("nothing is shared between two of them", async (trial) => {
  const [one, two] = [await attach(trial.pool), await attach(trial.pool, other)];
  await inside(trial, one, (path) => writeFileSync(join(path, "mine"), "x"));
  assert.deepEqual(await inside(trial, two, (path) => readdirSync(path)), ["lost+found"]);
});

scenario("one that a killed daemon was making is listed, and made anew", async (trial) => {
  const own = join(trial.directory, "home/lib/pool/roots", web);
  mkdirSync(own, { recursive: true });
  writeFileSync(join(own, "writable.ext4~new"), "half");
  writeFileSync(join(trial.directory, "home/lib/pool/blank-1.ext4~new"), "half");
  assert.deepEqual((await trial.pool.list()).roots, [{ id: web, attached: false }]);
  await check(await attach(trial.pool));
  assert.deepEqual(readdirSync(own), ["writable.ext4"]);
});

scenario("one that a power cut left broken is made anew, one that it left whole is kept", async (trial) => {
  const [broken, whole] = [await attach(trial.pool), await attach(trial.pool, other)];
  await inside(trial, whole, (path) => writeFileSync(join(path, "kept"), "x"));
  const fd = openSync(broken, "r+");
  writeSync(fd, Buffer.alloc(2 ** 20), 0, 2 ** 20, 0);
  closeSync(fd);
  trial.reboot();
  await check(await attach(trial.pool));
  assert.ok(existsSync(join(dirname(broken), "writable.broken.ext4")), "what could not be mended is set aside");
  assert.equal(await attach(trial.pool, other), whole);
  assert.equal(await inside(trial, whole, (path) => readFileSync(join(path, "kept"), "utf8")), "x");
});

scenario("one that is known to be on the disk is a guest's own affair after a power cut", async (trial) => {
  const disk = await attach(trial.pool);
  await trial.pool.detachRoot(web);
  const fd = openSync(disk, "r+");
  writeSync(fd, "what the guest did to it", 0);
  closeSync(fd);
  trial.reboot();
  await attach(trial.pool);
  assert.match((await run(["head", "--bytes=24", disk], {}, call)).stdout, /^what the guest did to it$/);
});

scenario("what a killed daemon did not put on the disk is put there by the next, once it can be", async (trial) => {
  const lib = join(trial.directory, "home/lib");
  mkdirSync(lib, { recursive: true });
  await run(["mount", "-t", "tmpfs", "-o", "nr_inodes=64", "tmpfs", lib], {}, call);
  const spec = { id: web, kind: "block", layers: [], readOnly: false } as const;
  const clock = new TestClock();
  await trial.pool.attachRoot(spec, backgroundCall(new TestClock()));
  await trial.restart().attachRoot(spec, backgroundCall(clock));
  const mark = join(lib, "pool/roots", web, "writable.durable");
  const fillers: string[] = [];
  const fill = (): void => {
    for (;;) {
      const filler = join(lib, `filler-${fillers.length}`);
      writeFileSync(filler, "");
      fillers.push(filler);
    }
  };
  assert.throws(fill, /ENOSPC/);
  await clock.advance(10_000);
  await until(() => clock.waiting === 1);
  assert.equal(existsSync(mark), false, "no room for it");
  for (const filler of fillers) rmSync(filler);
  await clock.advance(10_000);
  await until(() => existsSync(mark) && clock.waiting === 0);
});

scenario("one that its user put in the place of what was on the disk is looked at after a power cut", async (trial) => {
  const disk = await attach(trial.pool);
  await trial.pool.detachRoot(web);
  writeFileSync(`${disk}.next`, "not yet on the disk");
  renameSync(`${disk}.next`, disk);
  trial.reboot();
  await check(await attach(trial.pool));
});

scenario("on a full disk it is refused as exhausted, and nothing stays behind", async ({ directory }) => {
  const full = join(directory, "full");
  mkdirSync(full);
  await run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], {}, call);
  const pool = new OverlayPool({ ...homeBeneath(full), runDir: join(directory, "run") });
  await attach(pool);
  writeFileSync(join(full, "filler"), Buffer.alloc(500_000));
  await assert.rejects(attach(pool, other), (error) => isFault(error, "exhausted"));
  assert.deepEqual(readdirSync(join(full, "lib/pool/roots")), [web]);
  assert.deepEqual(
    (await pool.list()).roots.map(({ id }) => id),
    [web],
  );
});

scenario("without room for the first of all it says so, and works when there is room", async ({ directory }) => {
  const full = join(directory, "full");
  mkdirSync(full);
  await run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", full], {}, call);
  const pool = new OverlayPool({ ...homeBeneath(full), runDir: join(directory, "run") });
  await assert.rejects(attach(pool), (error) => isFault(error, "exhausted"));
  assert.deepEqual(readdirSync(join(full, "lib/pool/roots")), []);
  await run(["mount", "-o", "remount,size=8m", full], {}, call);
  await check(await attach(pool));
});
