import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import type { Reason } from "../../../base/fault.ts";
import { type InstanceId, instanceId } from "../../../base/id.ts";
import { isAlive, type ProcessIdentity } from "../../../host/proc.ts";
import { run } from "../../../host/process.ts";
import type { MachineDisk, MachineLaunch } from "../../contract.ts";
import { factsOf, refused, until } from "../../contract-suite.ts";
import { runtimes } from "../../monitor/runtime.ts";
import { loadSandbox } from "../sandbox.ts";
import { confinedArgs } from "../accelerator.ts";
import { obedient, Typist } from "./console.fixture.ts";
import type { MachineEngine } from "./engine.ts";
import { HostHarness } from "./host-harness.ts";
import { machineLayout } from "./places.ts";
import { clearTpm } from "./tpm.ts";
import { findHierarchies, openCgroups } from "../../../host/cgroup.ts";

describe("a machine that cannot be, or is killed", () => {
  const call = backgroundCall();
  let harness: HostHarness;
  let engine: MachineEngine;
  let last = 0;
  const newId = (): InstanceId => instanceId("suite", "safety", (last += 1), "0123abcd");
  const nothingLeft = async (): Promise<void> => assert.deepEqual(await harness.engine().list(call), []);
  const qemuImg = (...args: string[]): Promise<unknown> => run(["qemu-img", ...args], {}, call);

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
  });
  after(async () => {
    for (const { id } of await engine.list(call)) await engine.remove(id, call);
    await harness.dispose();
  });

  /** A machine with this one disk besides its own. */
  const withDisk = async (disk: MachineDisk["disk"], readOnly = false): Promise<MachineLaunch> => {
    const launch = await harness.machine(newId(), "sleep 1000");
    return { ...launch, disks: [...launch.disks, { name: "data", disk, readOnly, cdrom: false }] };
  };
  const file = (name: string): string => {
    mkdirSync(join(harness.directory, "disk"), { recursive: true });
    return join(harness.directory, "disk", name);
  };
  const refusedAtCreate = async (launch: MachineLaunch, reason: Reason): Promise<void> => {
    await refused(engine.create(launch, call), reason);
    await nothingLeft();
  };

  it("refuses an image that names a file of the host, wherever in its chain", async () => {
    const top = file("names-host.qcow2");
    await qemuImg("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/shadow", top, "1M");
    await refusedAtCreate(await withDisk({ path: top, format: "qcow2", backing: [] }), "hostile");
    await refusedAtCreate(await withDisk({ path: top, format: "qcow2", backing: ["/etc/passwd"] }), "hostile");
    const child = file("child.qcow2");
    await qemuImg("create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", top, child, "1M");
    await refusedAtCreate(await withDisk({ path: child, format: "qcow2", backing: [top] }), "hostile");
    const data = file("data-file.qcow2");
    await qemuImg("create", "-q", "-f", "qcow2", "-o", `data_file=${file("data.raw")},data_file_raw=on`, data, "1M");
    await refusedAtCreate(await withDisk({ path: data, format: "qcow2", backing: [] }), "hostile");
  });

  it("refuses an image that is truncated, in its tables or in its content", async () => {
    const path = file("truncated.qcow2");
    await qemuImg("create", "-q", "-f", "qcow2", path, "64M");
    await run(["qemu-io", "-c", "write -P 7 0 8M", path], {}, call);
    truncateSync(path, 4 * 2 ** 20);
    await refusedAtCreate(await withDisk({ path, format: "qcow2", backing: [] }), "corrupt");
    truncateSync(path, 50);
    await refusedAtCreate(await withDisk({ path, format: "qcow2", backing: [] }), "corrupt");
  });

  it("takes a raw disk as raw, whatever the guest wrote at its beginning", async () => {
    const path = file("looks-like.raw");
    await qemuImg("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/shadow", path, "1M");
    const launch = await withDisk({ path, format: "raw", backing: [] });
    await engine.create(launch, call);
    await engine.start(launch.id, call);
    const { pid } = (await factsOf(engine, launch.id)) ?? {};
    const { stdout } = await run(["ls", "-l", `/proc/${pid}/fd`], {}, call);
    assert.match(stdout, /looks-like\.raw/);
    assert.doesNotMatch(stdout, /shadow/);
    await engine.remove(launch.id, call);
    await nothingLeft();
  });

  it("says what is missing for devices of the host, and what no machine can have", async () => {
    const launch = await harness.machine(newId(), "sleep 1000");
    await refusedAtCreate({ ...launch, passthrough: { pci: ["0000:ff:1f.7"], usb: [] } }, "not-found");
    await refusedAtCreate({ ...launch, passthrough: { pci: [], usb: ["dead:beef"] } }, "not-found");
    await refusedAtCreate(
      { ...launch, topology: { sockets: 1, cores: 1, threads: 1 }, limits: { cpus: 2 } },
      "invalid",
    );
  });

  it("says why it does not start, and leaves nothing running", async () => {
    const launch = await harness.machine(newId(), "sleep 1000");
    const cases: readonly (readonly [Partial<MachineLaunch>, Reason])[] = [
      [{ cpuModel: "no-such-model,x=y" }, "invalid"],
      [{ cpuModel: "host" }, "unsupported"],
      [
        {
          attachment: {
            kind: "tap",
            taps: [{ name: "no-such-tap", mac: "02:00:00:00:00:01", address: "10.0.0.2", prefixLength: 24 }],
            resolvers: [],
          },
        },
        "not-found",
      ],
      [{ hugepages: true, limits: { memoryBytes: 2 ** 30 } }, "exhausted"],
    ];
    for (const [change, reason] of cases) {
      await engine.create({ ...launch, ...change }, call);
      await refused(engine.start(launch.id, call), reason);
      assert.deepEqual((await factsOf(engine, launch.id))?.status, "created");
      assert.deepEqual(openCgroups(findHierarchies()).pids(`/${harness.home.prefix}/${launch.id}`), []);
    }
    await engine.remove(launch.id, call);
    await nothingLeft();
  });

  it("stops a guest that never booted", async () => {
    const launch = await harness.machine(newId(), "sleep 1000");
    await engine.create({ ...launch, disks: [await harness.blank(launch.id, "empty", "16M")] }, call);
    await engine.start(launch.id, call);
    const startedMs = call.clock.monotonicMs();
    await engine.stop(launch.id, { signal: "SIGTERM", graceMs: 500 }, call);
    assert.ok(call.clock.monotonicMs() - startedMs < 10_000);
    assert.equal((await factsOf(engine, launch.id))?.exit?.code, 137);
    await engine.remove(launch.id, call);
    await nothingLeft();
  });

  it("tells that QEMU was killed, and starts again", async () => {
    const launch = await harness.machine(newId(), "sleep 1000");
    await engine.create(launch, call);
    await engine.start(launch.id, call);
    const { pid } = (await factsOf(engine, launch.id)) ?? {};
    assert.ok(pid !== undefined);
    process.kill(pid, "SIGKILL");
    await until(async () => (await factsOf(engine, launch.id))?.status === "exited");
    assert.deepEqual((await factsOf(engine, launch.id))?.exit?.code, 137);
    await engine.start(launch.id, call);
    await engine.remove(launch.id, call);
    await nothingLeft();
  });

  it("finds and ends what a daemon left that died at the worst moment", async () => {
    const launch = await harness.machine(newId(), "sleep 1000");
    const { id } = launch;
    const layout = machineLayout(harness.home);
    const paths = layout.of(id);
    const argv = [...confinedArgs, "-M", "q35", "-display", "none", "-S"];
    const half = (): Promise<{ readonly monitor: ProcessIdentity }> =>
      loadSandbox(id, { argv, uid: 1_900_000_000, limits: {}, log: { maxBytes: 4096 } }, runtimes.crun, layout, call);
    // Before it was let go, without a launch.
    mkdirSync(paths.dir, { recursive: true });
    let { monitor } = await half();
    assert.equal((await factsOf(harness.engine(), id))?.intact, false);
    await harness.engine().remove(id, call);
    await until(() => !isAlive(monitor));
    await nothingLeft();
    // The same, when it is created and started again.
    mkdirSync(paths.dir, { recursive: true });
    ({ monitor } = await half());
    await harness.engine().create(launch, call);
    await engine.start(id, call);
    await until(() => !isAlive(monitor));
    assert.equal((await factsOf(engine, id))?.status, "running");
    await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
    // Standing at its first instruction, with a memory to be loaded that never was.
    await engine.start(id, call);
    writeFileSync(paths.pausedFile, "loading");
    const other = harness.engine();
    await other.list(call);
    await until(async () => (await factsOf(other, id))?.status === "created");
    assert.ok(!existsSync(paths.pausedFile));
    await other.remove(id, call);
    await nothingLeft();
  });

  it("takes the medium out of a CD-ROM drive that was there from the start, and puts it back", async () => {
    const launch = await harness.machine(newId(), "sleep 1000");
    const iso: MachineDisk = { ...(await harness.blank(launch.id, "iso", "4M")), readOnly: true, cdrom: true };
    const isOpen = async (): Promise<boolean> => {
      const { pid } = (await factsOf(engine, launch.id)) ?? {};
      return (await run(["ls", "-l", `/proc/${pid}/fd`], {}, call)).stdout.includes("iso.qcow2");
    };
    const withIso = { ...launch, disks: [...launch.disks, iso] };
    await engine.create(withIso, call);
    await engine.start(launch.id, call);
    assert.ok(await isOpen());
    for (let round = 0; round < 2; round += 1) {
      await engine.hotplug.replug(launch, call);
      assert.ok(!(await isOpen()));
      await engine.hotplug.replug(withIso, call);
      assert.ok(await isOpen());
    }
    await engine.remove(launch.id, call);
    await nothingLeft();
  });

  it("says to the guest that the host's disk is full, and runs on after a snapshot that found no room", async () => {
    const launch = await harness.machine(newId(), obedient);
    const small = join(harness.directory, "small");
    mkdirSync(small);
    await run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", small], {}, call);
    try {
      const path = join(small, "data.qcow2");
      await qemuImg("create", "-q", "-f", "qcow2", path, "64M");
      const data = {
        name: "data",
        disk: { path, format: "qcow2", backing: [] },
        readOnly: false,
        cdrom: false,
      } as const;
      await engine.create({ ...launch, disks: [...launch.disks, data] }, call);
      await engine.start(launch.id, call);
      const typist = await Typist.at(engine, launch.id, call);
      await typist.until(/ready/);
      const disk = `$(cd /sys/block; for d in vd*; do [ "$(cat $d/serial)" = data ] && echo /dev/$d; done)`;
      await typist.ask("yes | head -c 16777216 > /tmp/much");
      assert.match(await typist.ask(`dd if=/tmp/much of=${disk} bs=1M conv=fsync 2>&1`), /error/i);
      const moved = { ...launch, disks: [{ ...data }, ...launch.disks] };
      await engine.stop(launch.id, { signal: "SIGKILL", graceMs: 0 }, call);
      // Memory goes to the first disk.
      await engine.create(moved, call);
      await engine.start(launch.id, call);
      const snapshot = engine.snapshots.createSnapshot(launch.id, { name: "large", memory: true }, call);
      await refused(snapshot, "exhausted");
      assert.deepEqual(await engine.snapshots.listSnapshots(launch.id, call), []);
      assert.equal((await factsOf(engine, launch.id))?.status, "running");
      await typist.leave();
    } finally {
      await engine.remove(launch.id, call);
      await run(["umount", small], {}, call);
    }
    await nothingLeft();
  });

  it("has a TPM that goes with it, however it goes", async () => {
    const launch = { ...(await harness.machine(newId(), "sleep 1000")), tpm: true };
    const { id } = launch;
    const layout = machineLayout(harness.home);
    const cgroups = openCgroups(findHierarchies());
    const tpmPids = (): number[] => cgroups.pids(layout.ofTpm(id).paths.cgroup);
    await engine.create(launch, call);
    await engine.start(id, call);
    const [tpm = 0] = tpmPids();
    assert.match(readFileSync(`/proc/${tpm}/cmdline`, "latin1"), /swtpm/);
    assert.match(readFileSync(`/proc/${tpm}/status`, "latin1"), /^CapEff:\s+0+$/m);
    const { pid = 0 } = (await factsOf(engine, id)) ?? {};
    process.kill(pid, "SIGKILL");
    await until(() => tpmPids().length === 0);
    await engine.start(id, call);
    assert.notDeepEqual(tpmPids(), []);
    await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
    assert.deepEqual(tpmPids(), []);
    // Its state outlives runs, and the machine, as disks do.
    assert.ok(existsSync(layout.of(id).tpmStateDir));
    await engine.start(id, call);
    await engine.remove(id, call);
    assert.deepEqual(tpmPids(), []);
    assert.ok(existsSync(layout.of(id).tpmStateDir));
    await engine.keepsake.forget(id, call);
    await clearTpm(id, layout, cgroups, call);
    await nothingLeft();
  });
});
