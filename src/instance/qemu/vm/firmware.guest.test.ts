import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { type InstanceId, instanceId } from "../../../base/id.ts";
import { run } from "../../../host/process.ts";
import type { MachineLaunch } from "../../contract.ts";
import { factsOf, refused } from "../../contract-suite.ts";
import { readRecord } from "../../monitor/record.ts";
import { obedient, Typist, untilSaid } from "./console.fixture.ts";
import type { MachineEngine } from "./engine.ts";
import { HostHarness } from "./host-harness.ts";
import { machineLayout } from "./places.ts";

describe("a machine's firmware", () => {
  const call = backgroundCall();
  let harness: HostHarness;
  let engine: MachineEngine;
  let last = 0;

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
  });
  after(async () => {
    for (const { id } of await engine.list(call)) await engine.remove(id, call);
    await harness.dispose();
  });

  const started = async (script: string, change: Partial<MachineLaunch>): Promise<InstanceId> => {
    const id = instanceId("suite", "firmware", (last += 1), "0123abcd");
    const launch = await harness.machine(id, script, { limits: { memoryBytes: 256 * 2 ** 20 }, ...change });
    const [root, scripts] = launch.disks;
    assert.ok(root !== undefined && scripts !== undefined);
    const data = await harness.blank(id, "data", "8M");
    await engine.create({ ...launch, disks: [await harness.efiDisk(), scripts, data] }, call);
    await engine.start(id, call);
    return id;
  };

  it("is UEFI with a TPM and a cloud-init seed, and its variables are in a snapshot", async () => {
    const cloudInit = {
      userData: "#cloud-config\n{}\n",
      metaData: "instance-id: one\n",
      networkConfig: "version: 2\n",
    };
    const id = await started(obedient, { firmware: "uefi", tpm: true, cloudInit });
    const paths = machineLayout(harness.home).of(id);
    assert.ok(existsSync(paths.nvramFile));
    await untilSaid(engine, id, /^ready/m, call);
    const typist = await Typist.at(engine, id, call);
    assert.equal(await typist.ask("ls -d /sys/firmware/efi"), "/sys/firmware/efi");
    assert.equal(await typist.ask("cat /sys/class/tpm/tpm0/tpm_version_major"), "2");
    const seed = '$(for d in /sys/block/vd*; do [ "$(cat $d/serial)" = cidata ] && echo /dev/${d##*/}; done)';
    assert.equal(await typist.ask(`head -c 49 ${seed} | tail -c 6; grep -c "#cloud-config" ${seed}`), "cidata1");
    await typist.ask("x=kept");
    await engine.snapshots.createSnapshot(id, { name: "all", memory: true }, call);
    await typist.leave();
    await engine.snapshots.revert(id, { name: "all", mark: "one" }, call);
    const again = await Typist.at(engine, id, call);
    assert.equal(await again.ask("echo $x; cat /sys/class/tpm/tpm0/tpm_version_major"), "kept\n2");
    await again.leave();
    await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
    // All that lives as long as the disks do, and so longer than the machine.
    const { launch } = (readRecord(paths.launchFile) ?? {}) as { launch: MachineLaunch };
    const variables = readFileSync(paths.nvramFile);
    const tpm = readdirSync(paths.tpmStateDir);
    assert.notDeepEqual(tpm, []);
    await engine.remove(id, call);
    assert.equal(await factsOf(engine, id), undefined);
    assert.deepEqual([readFileSync(paths.nvramFile).equals(variables), readdirSync(paths.tpmStateDir)], [true, tpm]);
    await engine.create(launch, call);
    const snapshots = await engine.snapshots.listSnapshots(id, call);
    assert.deepEqual(
      snapshots.map(({ name }) => name),
      ["all"],
    );
    await engine.remove(id, call);
    const twin = instanceId("suite", "firmware", 99, "0123abcd");
    const other = machineLayout(harness.home).of(twin);
    await engine.keepsake.inherit(id, twin, call);
    await run(["qemu-img", "compare", "-q", paths.nvramFile, other.nvramFile], {}, call);
    assert.ok(!existsSync(other.tpmStateDir), "secrets are one machine's");
    const [file, thief] = ["firmware.qcow2", "thief.qcow2"].map((name) => join(harness.directory, name)) as [
      string,
      string,
    ];
    assert.equal(await engine.keepsake.exportFirmware(twin, file, call), true);
    await engine.keepsake.forget(twin, call);
    assert.equal(await engine.keepsake.exportFirmware(twin, file, call), false);
    await engine.keepsake.importFirmware(twin, file, call);
    await run(["qemu-img", "compare", "-q", paths.nvramFile, other.nvramFile], {}, call);
    await run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", thief, "528K"], {}, call);
    await refused(engine.keepsake.importFirmware(twin, thief, call), "hostile");
    for (const one of [id, id, twin]) await engine.keepsake.forget(one, call);
    assert.deepEqual([existsSync(paths.keptDir), existsSync(other.keptDir)], [false, false]);
  });

  it("runs nothing unsigned with Secure Boot", async () => {
    const id = await started("echo ran", { firmware: "uefi-secure" });
    // The firmware tries each disk and refuses; then it looks elsewhere, and waits for somebody at its screen.
    const text = await untilSaid(engine, id, /Access Denied|Security Violation/i, call);
    assert.doesNotMatch(text, /^ran$/m);
    assert.equal((await factsOf(engine, id))?.status, "running");
  });
});
