import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { backgroundCall, systemClock } from "../../base/call.ts";
import { type Home, homeBeneath } from "../../base/home.ts";
import { type InstanceId, instanceId } from "../../base/id.ts";
import { run } from "../../host/process.ts";
import { OverlayPool } from "./pool.ts";

/** The pool on a disk of its own whose power is cut: what was not on it by then is gone. */

const call = backgroundCall();
const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;

let directory: string;
let home: Home;
let base: { readonly path: string; readonly format: "qcow2" };

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "power."));
  home = { ...homeBeneath(join(directory, "home")), libDir: join(directory, "lib") };
  base = { path: join(directory, "debian.qcow2"), format: "qcow2" };
  await run(["qemu-img", "create", "-q", "-f", "qcow2", base.path, String(gibibyte)], {}, call);
  writeFileSync(join(directory, "disk"), "");
  truncateSync(join(directory, "disk"), 320 * mebibyte);
  await run(["mkfs.xfs", "-q", join(directory, "disk")], {}, call);
  mkdirSync(home.libDir);
  await plugIn();
});

afterEach(async () => {
  await run(["umount", home.libDir], {}, call);
  rmSync(directory, { recursive: true });
});

async function plugIn(): Promise<void> {
  await run(["mount", "-o", "loop", join(directory, "disk"), home.libDir], {}, call);
}

async function cutPower(): Promise<void> {
  await run(["xfs_io", "-x", "-c", "shutdown", home.libDir], {}, call);
}

/** The pool of the daemon that starts after the machine did. */
async function startAgain(): Promise<OverlayPool> {
  await run(["umount", home.libDir], {}, call);
  rmSync(home.runDir, { recursive: true, force: true });
  await plugIn();
  return new OverlayPool(home);
}

function machine(ordinal: number): InstanceId {
  return instanceId("shop", "files", ordinal, "0123abcd");
}

async function qemuIo(path: string, command: string): Promise<void> {
  const { stdout } = await run(["qemu-io", "-f", "qcow2", "-c", command, "-c", "flush", path], {}, call);
  assert.doesNotMatch(stdout, /verification failed/);
}

test("a disk that was handed out is there after a power cut, with all that its machine was told is kept", async () => {
  const { disks } = new OverlayPool(home);
  const { path } = await disks.attachDisk({ id: machine(1), name: "root", base }, call);
  await qemuIo(path, `write -P 0x11 ${mebibyte} 64k`);
  await disks.cloneDisk({ id: machine(1), name: "root" }, { id: machine(2), name: "root" }, call);
  await disks.attachDisk({ id: machine(3), name: "data", sizeBytes: gibibyte }, call);
  await cutPower();
  const after = await startAgain();
  assert.equal((await after.disks.listDisks(call)).length, 3);
  for (const { id, name } of await after.disks.listDisks(call)) {
    const disk = await after.disks.attachDisk({ id, name, base }, call);
    await run(["qemu-img", "check", "-q", "-f", "qcow2", disk.path], {}, call);
    if (name === "root") await qemuIo(disk.path, `read -P 0x11 ${mebibyte} 64k`);
  }
});

test("whenever the power is cut, what was handed out is there, and everything that is there is whole", async () => {
  for (let round = 1; round <= 4; round += 1) {
    const pool = new OverlayPool(home);
    const handedOut = new Set<string>();
    const power = { on: true };
    // What a daemon meant to do later ends with it.
    const after = (delayMs: number, action: () => void): (() => void) =>
      systemClock.after(delayMs, () => (power.on ? action() : undefined));
    const living = backgroundCall({ ...systemClock, after });
    const working = (async () => {
      for (let ordinal = 1; power.on; ordinal += 1) {
        const id = machine(ordinal);
        await pool.disks.attachDisk({ id, name: "root", base }, living);
        if (power.on) handedOut.add(id);
        await pool.attachRoot({ id, kind: "block", layers: [], readOnly: false }, living);
        // What is removed after the cut was noted would be taken for lost.
        if (ordinal % 3 > 0 || !power.on) continue;
        handedOut.delete(machine(ordinal - 1));
        await pool.disks.removeDisk(machine(ordinal - 1), "root", living);
      }
    })().catch(() => {});
    for (let tries = 0; handedOut.size === 0 && tries < 2000; tries += 1) await call.clock.sleep(5);
    await call.clock.sleep(Math.random() * 300);
    power.on = false;
    // Only what was said before the cut counts.
    const before = [...handedOut];
    assert.ok(before.length > 0);
    await cutPower();
    await working;
    const next = await startAgain();
    const listed = await next.disks.listDisks(call);
    for (const id of before)
      assert.ok(
        listed.some((disk) => disk.id === id && disk.sizeBytes > 0),
        `${id} is lost`,
      );
    for (const { id, name } of listed) {
      const { path } = await next.disks.attachDisk({ id, name, base }, call);
      await run(["qemu-img", "check", "-q", "-f", "qcow2", path], {}, call);
      await next.disks.removeDisk(id, name, call);
    }
    for (const { id } of (await next.list()).roots) {
      const root = await next.attachRoot({ id, kind: "block", layers: [], readOnly: false }, call);
      assert.ok(root.kind === "block" && root.writable !== undefined);
      await run(["e2fsck", "-f", "-n", root.writable], {}, call);
      await next.removeRoot(id);
    }
    assert.deepEqual(await next.list(), { roots: [], volumes: [] });
    assert.deepEqual(await next.disks.listDisks(call), []);
  }
});
