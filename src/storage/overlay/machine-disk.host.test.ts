import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { type Home, homeBeneath } from "../../base/home.ts";
import { instanceId } from "../../base/id.ts";
import { listMounts, unmount } from "../../host/mount.ts";
import { run, stream } from "../../host/process.ts";
import type { AttachedDisk, DiskFacet, DiskKey } from "../contract.ts";
import { diskContract } from "../disk-suite.ts";
import { OverlayPool } from "./pool.ts";

const call = backgroundCall();
const root: DiskKey = { id: instanceId("shop", "files", 1, "0123abcd"), name: "root" };
const data: DiskKey = { ...root, name: "data" };
const other: DiskKey = { ...root, id: instanceId("shop", "files", 2, "0123abcd") };
const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;

interface Trial {
  readonly directory: string;
  readonly home: Home;
  readonly disks: DiskFacet;
  readonly base: { readonly path: string; readonly format: "qcow2" };
  readonly baseBytes: number;
  readonly exportPath: string;
  dispose(): Promise<void>;
}

/** A home of its own, and an image that has something in its first MiB. */
async function trial(): Promise<Trial> {
  const directory = mkdtempSync(join(tmpdir(), "disks."));
  const home = homeBeneath(join(directory, "home"));
  const path = join(directory, "debian.qcow2");
  await run(["qemu-img", "create", "-q", "-f", "qcow2", path, String(gibibyte)], {}, call);
  await write(path, 0xba, 0);
  chmodSync(path, 0o444);
  return {
    directory,
    home,
    disks: new OverlayPool(home).disks,
    base: { path, format: "qcow2" },
    baseBytes: gibibyte,
    exportPath: join(directory, "exported.qcow2"),
    async dispose() {
      for (const { target } of listMounts(directory).toReversed()) await unmount(target, { detach: true });
      rmSync(directory, { recursive: true });
    },
  };
}

diskContract("overlay", trial);

function scenario(what: string, body: (trial: Trial) => Promise<void>): void {
  test(`disks overlay: ${what}`, async () => {
    const made = await trial();
    try {
      await body(made);
    } finally {
      await made.dispose();
    }
  });
}

/** What a guest does: 64 KiB of one byte at a place. */
async function write(path: string, byte: number, at: number): Promise<void> {
  await run(["qemu-io", "-f", "qcow2", "-c", `write -P ${byte} ${at} 64k`, path], {}, call);
}

/** True when a guest finds 64 KiB of this byte there. */
async function has(path: string, byte: number, at: number): Promise<boolean> {
  const { stdout } = await run(
    ["qemu-io", "-r", "-f", "qcow2", "-c", `read -P ${byte} ${at} 64k`, path],
    okCodes,
    call,
  );
  return !stdout.includes("verification failed");
}

const okCodes = { okCodes: [0, 1] };

async function check(path: string): Promise<void> {
  await run(["qemu-img", "check", "-q", "-f", "qcow2", path], {}, call);
}

async function snapshot(path: string, ...argv: string[]): Promise<string> {
  return (await run(["qemu-img", "snapshot", ...argv, path], {}, call)).stdout;
}

const folderOf = ({ home }: Trial, { id, name }: DiskKey): string => join(home.libDir, "pool/disks", id, name);
const frozenOf = ({ home }: Trial): string[] => {
  const folder = join(home.libDir, "pool/frozen");
  return existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
};
const attach = ({ disks, base }: Trial, key = root): Promise<AttachedDisk> => disks.attachDisk({ ...key, base }, call);

function exhausted(working: Promise<unknown>): Promise<void> {
  return assert.rejects(working, (error) => isFault(error, "exhausted"));
}

function refusedAsOpen(working: Promise<unknown>): Promise<void> {
  return assert.rejects(working, (error) => isFault(error, "precondition") && /has it open/.test(error.message));
}

scenario("QEMU finds nothing wrong with what we write, and the same in it as in its own", async (trial) => {
  const { path } = await trial.disks.attachDisk({ ...root, base: trial.base, sizeBytes: 20 * gibibyte }, call);
  await check(path);
  assert.ok(statSync(path).blocks * 512 < mebibyte);
  assert.ok(await has(path, 0xba, 0));
  assert.ok(await has(path, 0, 19 * gibibyte), "beyond the image there are zeros");
  const theirs = join(trial.directory, "theirs.qcow2");
  const create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", trial.base.path, "-F", "qcow2", theirs, "20G"];
  await run(create, {}, call);
  const facts = async (image: string): Promise<Record<string, unknown>> => {
    const { stdout } = await run(["qemu-img", "info", "--output=json", image], {}, call);
    const { filename: _, "actual-size": __, children: ___, ...rest } = JSON.parse(stdout) as Record<string, unknown>;
    return rest;
  };
  assert.deepEqual(await facts(path), await facts(theirs));
  await run(["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", path, theirs], {}, call);
});

scenario("disks of every size are sound", async (trial) => {
  for (const [index, sizeBytes] of [512, 513, 65_536, 3 * gibibyte + 1, 5 * 2 ** 40, 64 * 2 ** 40].entries()) {
    const key = { ...data, name: `data${index}` };
    const { path } = await trial.disks.attachDisk({ ...key, sizeBytes }, call);
    await check(path);
    await write(path, 0x11, 0).catch((error: unknown) => sizeBytes > 65_536 && assert.fail(String(error)));
    if (sizeBytes > gibibyte) {
      await write(path, 0x12, sizeBytes - (sizeBytes % 512) - 65_536);
      assert.ok(await has(path, 0x12, sizeBytes - (sizeBytes % 512) - 65_536));
    }
    await check(path);
  }
  const tooMuch = trial.disks.attachDisk({ ...data, name: "absurd", sizeBytes: 2 ** 50 }, call);
  await assert.rejects(tooMuch, (error) => isFault(error, "invalid"));
});

scenario("what a machine writes stays, and the image remains as it was", async (trial) => {
  const before = readFileSync(trial.base.path);
  const { path } = await attach(trial);
  await write(path, 0x22, 0);
  await trial.disks.attachDisk({ ...root, base: trial.base, sizeBytes: 2 * gibibyte }, call);
  assert.ok(await has(path, 0x22, 0));
  await check(path);
  assert.ok(before.equals(readFileSync(trial.base.path)));
  const [facts] = await trial.disks.listDisks(call);
  assert.ok((facts?.usedBytes ?? 0) > 65_536);
});

scenario("it has snapshots, and grows with them", async (trial) => {
  const { path } = await attach(trial);
  await write(path, 0x31, 0);
  await snapshot(path, "-c", "before");
  await write(path, 0x32, 0);
  await trial.disks.attachDisk({ ...root, base: trial.base, sizeBytes: 6 * gibibyte }, call);
  await check(path);
  await snapshot(path, "-a", "before");
  assert.ok(await has(path, 0x31, 0));
  await check(path);
});

scenario("a raw image is a base too", async (trial) => {
  const raw = join(trial.directory, "debian.raw");
  writeFileSync(raw, Buffer.alloc(mebibyte + 100, 0x41));
  const { path, backing } = await trial.disks.attachDisk({ ...root, base: { path: raw, format: "raw" } }, call);
  assert.deepEqual(backing, [raw]);
  assert.ok(await has(path, 0x41, 0));
  await check(path);
  assert.equal((await trial.disks.listDisks(call))[0]?.sizeBytes, mebibyte + 512);
});

scenario("its owner may open it, and becomes another when asked for", async ({ disks, base }) => {
  const { path } = await disks.attachDisk({ ...root, base, ownerUid: 4711 }, call);
  assert.deepEqual([statSync(path).uid, statSync(path).mode & 0o777], [4711, 0o600]);
  await disks.attachDisk({ ...root, base, ownerUid: 4712 }, call);
  assert.equal(statSync(path).uid, 4712);
});

scenario(
  "a disk whose header names a file that is not its own is not handed out, grown, cloned or exported",
  async (trial) => {
    const { path } = await attach(trial);
    const secret = join(trial.directory, "secret");
    writeFileSync(secret, Buffer.alloc(gibibyte / 1024, 0x51));
    await run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", secret, "-F", "raw", path], {}, call);
    const refused = (working: Promise<unknown>): Promise<void> =>
      assert.rejects(working, (error) => isFault(error, "hostile") && error.message.includes(secret));
    await refused(attach(trial));
    await refused(trial.disks.attachDisk({ ...root, base: trial.base, sizeBytes: 9 * gibibyte }, call));
    await refused(trial.disks.cloneDisk(root, other, call));
    await refused(trial.disks.exportDisk(root, trial.exportPath, call));
    assert.equal((await trial.disks.listDisks(call)).length, 1);
    // Also when it names the right one as another format, which QEMU would have to guess.
    await run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", trial.base.path, "-F", "raw", path], {}, call);
    await assert.rejects(attach(trial), (error) => isFault(error, "hostile"));
    await run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", trial.base.path, "-F", "qcow2", path], {}, call);
    await attach(trial);
  },
);

scenario("a base that reads from another file is refused", async (trial) => {
  const child = join(trial.directory, "child.qcow2");
  await run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", trial.base.path, "-F", "qcow2", child], {}, call);
  const attached = trial.disks.attachDisk({ ...root, base: { path: child, format: "qcow2" } }, call);
  await assert.rejects(attached, (error) => isFault(error, "hostile"));
  assert.deepEqual(await trial.disks.listDisks(call), []);
});

scenario("a base that is gone is said to be gone, and the disk is still listed and removed", async (trial) => {
  const { path } = await attach(trial);
  rmSync(trial.base.path);
  await assert.rejects(
    attach(trial),
    (error) => isFault(error, "not-found") && /debian\.qcow2.* is gone/.test(error.message),
  );
  await assert.rejects(attach(trial, other), (error) => isFault(error, "not-found"));
  assert.equal((await trial.disks.listDisks(call)).length, 1);
  await trial.disks.removeDisk(root.id, root.name, call);
  assert.ok(!existsSync(path));
});

scenario("a disk that a machine has open is neither grown nor cloned nor exported", async (trial) => {
  const { path } = await attach(trial);
  const machine = stream(["qemu-io", "-f", "qcow2", path], {}, call);
  machine.stdin.write("read 0 512\n");
  for await (const _ of machine.stdout) break;
  await attach(trial);
  await refusedAsOpen(trial.disks.attachDisk({ ...root, base: trial.base, sizeBytes: 2 * gibibyte }, call));
  await refusedAsOpen(trial.disks.cloneDisk(root, other, call));
  await refusedAsOpen(trial.disks.exportDisk(root, trial.exportPath, call));
  machine.stdin.end();
  await machine.exited;
  await trial.disks.attachDisk({ ...root, base: trial.base, sizeBytes: 2 * gibibyte }, call);
});

scenario("a clone and its source go their ways, and share what they were", async (trial) => {
  const { path } = await trial.disks.attachDisk({ ...root, base: trial.base, ownerUid: 4711 }, call);
  await write(path, 0x61, mebibyte);
  await trial.disks.cloneDisk(root, other, call);
  assert.equal(frozenOf(trial).length, 1);
  const source = await trial.disks.attachDisk({ ...root, base: trial.base, ownerUid: 4711 }, call);
  const clone = await attach(trial, other);
  assert.equal(source.path, path);
  assert.deepEqual(source.backing, [...frozenOf(trial), trial.base.path]);
  assert.deepEqual(clone.backing, source.backing);
  assert.equal(statSync(path).uid, 4711);
  for (const disk of [source, clone]) {
    assert.ok(await has(disk.path, 0x61, mebibyte));
    assert.ok(await has(disk.path, 0xba, 0));
  }
  await write(source.path, 0x62, mebibyte);
  await write(clone.path, 0x63, mebibyte);
  assert.ok((await has(source.path, 0x62, mebibyte)) && (await has(clone.path, 0x63, mebibyte)));
  // Again and again, the clone of a disk that nobody wrote to adds nothing to what has to be read.
  const third = { ...root, name: "third" };
  const fourth = { ...root, name: "fourth" };
  await trial.disks.cloneDisk(other, third, call);
  await trial.disks.cloneDisk(third, fourth, call);
  assert.deepEqual((await attach(trial, third)).backing, (await attach(trial, fourth)).backing);
  assert.equal(frozenOf(trial).length, 2);
  for (const key of [root, other, third]) await trial.disks.removeDisk(key.id, key.name, call);
  const last = await attach(trial, fourth);
  assert.ok(await has(last.path, 0x63, mebibyte));
  await check(last.path);
  await trial.disks.removeDisk(fourth.id, fourth.name, call);
  assert.deepEqual(frozenOf(trial), [], "what no disk reads any more goes");
  assert.deepEqual(readdirSync(join(trial.home.libDir, "pool/disks")), []);
});

scenario("a clone of a disk with snapshots has them too", async (trial) => {
  const { path } = await attach(trial);
  await write(path, 0x71, 0);
  await snapshot(path, "-c", "kept");
  await write(path, 0x72, 0);
  await trial.disks.cloneDisk(root, other, call);
  await trial.disks.removeDisk(root.id, root.name, call);
  const clone = await attach(trial, other);
  assert.match(await snapshot(clone.path, "-l"), /kept/);
  assert.ok(await has(clone.path, 0x72, 0));
  await snapshot(clone.path, "-a", "kept");
  assert.ok(await has(clone.path, 0x71, 0));
  await check(clone.path);
});

scenario("an exported disk stands alone", async (trial) => {
  const { path } = await attach(trial);
  await write(path, 0x81, mebibyte);
  await trial.disks.exportDisk(root, trial.exportPath, call);
  rmSync(trial.base.path);
  assert.ok(await has(trial.exportPath, 0xba, 0));
  assert.ok(await has(trial.exportPath, 0x81, mebibyte));
  await check(trial.exportPath);
});

scenario("whatever an interruption leaves is listed, and attaching or removing completes it", async (trial) => {
  const { path } = await attach(trial);
  await write(path, 0x91, 0);
  mkdirSync(`${folderOf(trial, data)}~new`, { recursive: true });
  mkdirSync(`${folderOf(trial, other)}~removed`, { recursive: true });
  const disks = new OverlayPool(trial.home).disks;
  const listed = (await disks.listDisks(call)).map(({ id, name, sizeBytes }) => [id, name, sizeBytes]);
  assert.deepEqual(listed, [
    [root.id, "data", 0],
    [root.id, "root", gibibyte],
    [other.id, "root", 0],
  ]);
  await disks.attachDisk({ ...data, sizeBytes: gibibyte }, call);
  await disks.removeDisk(data.id, data.name, call);
  await disks.removeDisk(other.id, other.name, call);
  assert.equal((await disks.listDisks(call)).length, 1);
  assert.ok(await has(path, 0x91, 0));
});

scenario("a freezing that was interrupted is taken up where it was, at each of its steps", async (trial) => {
  const { path } = await attach(trial);
  await write(path, 0xa1, 0);
  const record = join(folderOf(trial, root), "disk.json");
  const before = readFileSync(record);
  await trial.disks.cloneDisk(root, other, call);
  await trial.disks.removeDisk(other.id, other.name, call);
  const [frozen = ""] = frozenOf(trial);
  const { chain } = JSON.parse(readFileSync(record, "utf8")) as { chain: unknown[] };
  const between = JSON.stringify({ ...(JSON.parse(String(before)) as object), next: chain });
  // The child had its name already, but the record was not finished.
  writeFileSync(record, between);
  const disk = await attach({ ...trial, disks: new OverlayPool(trial.home).disks });
  assert.deepEqual(disk.backing, [frozen, trial.base.path]);
  assert.ok(await has(path, 0xa1, 0));
  // The child had not: the disk is still the file that was to be frozen, under two names.
  await run(["mv", frozen, path], {}, call);
  await run(["ln", path, frozen], {}, call);
  writeFileSync(record, between);
  assert.deepEqual((await attach(trial)).backing, [trial.base.path]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok(await has(path, 0xa1, 0));
  await trial.disks.attachDisk({ ...data, sizeBytes: gibibyte }, call);
  await trial.disks.removeDisk(data.id, data.name, call);
  assert.deepEqual(frozenOf(trial), []);
});

scenario("on a full disk everything is refused as exhausted, and nothing stays behind", async (trial) => {
  const full = join(trial.directory, "full");
  mkdirSync(full);
  await run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], {}, call);
  const { disks } = new OverlayPool({ ...homeBeneath(full), runDir: join(trial.directory, "run") });
  const { path } = await disks.attachDisk({ ...root, base: trial.base }, call);
  await write(path, 0xc1, 0);
  const filler = openSync(join(full, "filler"), "w");
  try {
    for (;;) writeSync(filler, Buffer.alloc(4096));
  } catch (error) {
    assert.match(String(error), /ENOSPC/);
  }
  closeSync(filler);
  await exhausted(disks.attachDisk({ ...other, base: trial.base }, call));
  await exhausted(disks.cloneDisk(root, other, call));
  await exhausted(disks.exportDisk(root, join(full, "exported.qcow2"), call));
  const left = readdirSync(full, { recursive: true }).map(String);
  assert.deepEqual(
    left.filter((name) => /~|exported|files\.2/.test(name)),
    [],
  );
  assert.equal((await disks.listDisks(call)).length, 1);
  rmSync(join(full, "filler"));
  assert.ok(await has(path, 0xc1, 0));
  await disks.cloneDisk(root, other, call);
  assert.ok(await has((await disks.attachDisk(other, call)).path, 0xc1, 0));
});
