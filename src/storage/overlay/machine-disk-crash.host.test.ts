import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { homeBeneath } from "../../base/home.ts";
import { instanceId } from "../../base/id.ts";
import { run, stream } from "../../host/process.ts";
import { OverlayPool } from "./pool.ts";

/**
 * A process that makes, grows, clones and removes disks without end is killed at random moments; the next one must find
 * every disk whole or not there, and be able to take everything away.
 */

const call = backgroundCall();
const rounds = 15;
const [source, ...clones] = [1, 2, 3].map((ordinal) => instanceId("shop", "files", ordinal, "0123abcd"));
const name = "root";
const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;

const churning = process.env["DISK_CHURN"];
if (churning === undefined) {
  test("disks overlay: killed at any moment, every disk is whole or not there", converges);
} else {
  await churn(churning);
}

async function converges(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "disks."));
  try {
    const base = baseIn(directory);
    await run(["qemu-img", "create", "-q", "-f", "qcow2", base.path, String(gibibyte)], {}, call);
    await qemuIo(base.path, `write -P 0xba 0 64k`);
    const home = homeBeneath(join(directory, "home"));
    for (let round = 0; round < rounds; round += 1) {
      await killedChurn(directory, Math.random() * 400);
      const { disks } = new OverlayPool(home);
      for (const { id, name, sizeBytes } of await disks.listDisks(call)) {
        const { path } = await disks.attachDisk({ id, name, base }, call);
        // 3: space was taken that nothing uses yet, which is what a writer that is killed leaves; all else is damage.
        await run(["qemu-img", "check", "-q", "-f", "qcow2", path], { okCodes: [0, 3] }, call);
        await qemuIo(path, "read -P 0xba 0 64k");
        // One that was whole already is a clone of what was written before.
        if (id !== source && sizeBytes > 0) await qemuIo(path, `read -P 0xd1 ${mebibyte} 64k`);
      }
      for (const { id, name } of await disks.listDisks(call)) await disks.removeDisk(id, name, call);
      assert.deepEqual(await disks.listDisks(call), []);
      assert.deepEqual(readdirSync(join(home.libDir, "pool/disks")), []);
      assert.deepEqual(
        new Set<unknown>(readdirSync(join(home.libDir, "pool"), { recursive: true })),
        new Set(["disks", "frozen"]),
      );
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Runs this file as the process that churns, until it is killed some time after its first pass began. */
async function killedChurn(directory: string, afterMs: number): Promise<void> {
  const program = [process.execPath, "--disable-warning=ExperimentalWarning", import.meta.filename];
  const child = stream(program, { env: { DISK_CHURN: directory } }, call);
  for await (const chunk of child.stdout) {
    assert.equal(String(chunk), "churning\n");
    break;
  }
  await call.clock.sleep(afterMs);
  child.kill("SIGKILL");
  assert.deepEqual(await child.exited, { code: null, signal: "SIGKILL" }, "it was still churning");
}

async function churn(directory: string): Promise<never> {
  const { disks } = new OverlayPool(homeBeneath(join(directory, "home")));
  const base = baseIn(directory);
  assert.ok(source !== undefined);
  for (let pass = 0; ; pass += 1) {
    const { path } = await disks.attachDisk({ id: source, name, base }, call);
    await qemuIo(path, `write -P 0xd1 ${mebibyte} 64k`);
    if (pass === 0) process.stdout.write("churning\n");
    for (const id of clones) await disks.cloneDisk({ id: source, name }, { id, name }, call);
    await disks.attachDisk({ id: source, name, sizeBytes: 2 * gibibyte }, call);
    await Promise.all([source, ...clones].map((id) => disks.removeDisk(id, name, call)));
  }
}

/** Fails when a read finds something else than it was told. */
async function qemuIo(path: string, command: string): Promise<void> {
  const { stdout } = await run(["qemu-io", "-f", "qcow2", "-c", command, path], { endsWithUs: true }, call);
  assert.doesNotMatch(stdout, /verification failed/);
}

function baseIn(directory: string): { readonly path: string; readonly format: "qcow2" } {
  return { path: join(directory, "debian.qcow2"), format: "qcow2" };
}
