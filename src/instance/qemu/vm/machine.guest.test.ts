import assert from "node:assert/strict";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { instanceId } from "../../../base/id.ts";
import { run } from "../../../host/process.ts";
import type { InstanceEvent, MachineDisk, MachineLaunch } from "../../contract.ts";
import { factsOf, refused, until, untilLogged } from "../../contract-suite.ts";
import { obedient, Typist } from "./console.fixture.ts";
import type { MachineEngine } from "./engine.ts";
import { HostHarness, macOf } from "./host-harness.ts";

const mebibyte = 2 ** 20;

/** One machine and what may happen to it, in an order in which each step stands on the one before. */
describe("a machine", () => {
  const call = backgroundCall();
  const id = instanceId("suite", "machine", 1, "0123abcd");
  let harness: HostHarness;
  let engine: MachineEngine;
  let launch: MachineLaunch;
  let typist: Typist;
  const readData = (): Promise<string> => typist.ask(`head -c 3 ${disk("data")}`);
  const writeData = (text: string): Promise<string> =>
    typist.ask(
      `x=${text}; printf ${text} > /tmp/x; dd if=/tmp/x of=${disk("data")} bs=512 conv=sync,fsync 2>/dev/null`,
    );

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
    const machine = await harness.machine(id, obedient, {
      balloon: true,
      limits: { cpus: 1, memoryBytes: 192 * mebibyte },
    });
    launch = { ...machine, disks: [...machine.disks, await harness.blank(id, "data", "64M")] };
    await engine.create(launch, call);
    await engine.start(id, call);
    typist = await Typist.at(engine, id, call);
    await typist.until(/ready/);
  });

  after(async () => {
    await typist.leave();
    await engine.remove(id, call);
    assert.deepEqual(await engine.list(call), []);
    await harness.dispose();
  });

  it("shows its screen", async () => {
    const picture = Buffer.from(await engine.screenshot.screenshot(id, call));
    assert.equal(picture.toString("latin1", 1, 4), "PNG");
    assert.ok(picture.readUInt32BE(16) >= 640);
  });

  it("keeps disks and memory, changes, and goes back to both", async () => {
    await writeData("one");
    await engine.snapshots.createSnapshot(id, { name: "warm", memory: true }, call);
    await engine.snapshots.createSnapshot(id, { name: "warm", memory: true }, call);
    await refused(engine.snapshots.createSnapshot(id, { name: "warm", memory: false }, call), "conflict");
    await writeData("two");
    await engine.snapshots.createSnapshot(id, { name: "cold", memory: false }, call);
    await writeData("six");
    const before = await factsOf(engine, id);
    await typist.leave();
    await engine.snapshots.revert(id, { name: "warm", mark: "first" }, call);
    typist = await Typist.at(engine, id, call);
    assert.equal(await typist.ask("echo $x"), "one");
    assert.equal(await readData(), "one");
    const facts = await factsOf(harness.engine(), id);
    assert.equal(facts?.revertMark, "first");
    assert.equal(facts.status, "running");
    assert.notEqual(facts.pid, before?.pid);
    await engine.snapshots.revert(id, { name: "warm", mark: "first" }, call);
    assert.equal((await factsOf(engine, id))?.pid, facts.pid, "the same request again does nothing");
    const known = await engine.snapshots.listSnapshots(id, call);
    assert.deepEqual(
      known.map(({ name, memory }) => [name, memory]),
      [
        ["warm", true],
        ["cold", false],
      ],
    );
    await refused(engine.snapshots.revert(id, { name: "none", mark: "x" }, call), "not-found");
  });

  it("takes disks, nics, processors and memory while it runs, and gives disks and nics back", async () => {
    const extra = { ...(await harness.blank(id, "extra", "32M")), sizeBytes: 48 * mebibyte };
    const iso: MachineDisk = { ...(await harness.blank(id, "iso", "4M")), readOnly: true, cdrom: true };
    const tap = `${harness.home.prefix}-second`;
    harness.addTap(tap);
    assert.ok(launch.attachment.kind === "tap");
    const nic = { name: tap, mac: macOf(tap), address: "10.9.8.2", prefixLength: 24 };
    const larger: MachineLaunch = {
      ...launch,
      disks: [...launch.disks, extra, iso],
      attachment: { ...launch.attachment, taps: [...launch.attachment.taps, nic] },
    };
    await engine.hotplug.replug(larger, call);
    await engine.hotplug.replug(larger, call);
    await typist.ask(`until [ -n "${disk("extra")}" ] && [ -d /sys/class/net/eth1 ]; do sleep 0.1; done`);
    assert.equal(await typist.ask(`cat /sys/block/$(basename ${disk("extra")})/size`), String((48 * mebibyte) / 512));
    assert.equal(await typist.ask("cat /sys/class/net/eth1/address"), nic.mac);
    await typist.ask("until [ -e /sys/block/sr1 ] || [ -e /sys/block/sr0 ]; do sleep 0.1; done");
    await engine.hotplug.replug(launch, call);
    assert.equal(await typist.ask(`echo "${disk("extra")}" $(ls /sys/class/net)`), "eth0 lo");
    await engine.resize.resize(id, { cpus: 2, memoryBytes: 320 * mebibyte }, call);
    await typist.ask(
      "until [ -d /sys/devices/system/cpu/cpu1 ]; do sleep 0.1; done; echo 1 > /sys/devices/system/cpu/cpu1/online",
    );
    assert.equal(await typist.ask("grep -c ^processor /proc/cpuinfo"), "2");
    const kibibytes = Number(await typist.ask("sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"));
    assert.ok(kibibytes > 200 * 1024, `${kibibytes} KiB of memory`);
    assert.deepEqual((await factsOf(harness.engine(), id))?.limits, { cpus: 2, memoryBytes: 320 * mebibyte });
    await refused(engine.resize.resize(id, { cpus: 999 }, call), "precondition");
  });

  it("sleeps, and goes on where it was", async () => {
    const events: InstanceEvent[] = [];
    const cancel = new AbortController();
    const watching = (async () => {
      for await (const event of engine.watch(backgroundCall(call.clock, cancel.signal))) events.push(event);
    })();
    try {
      await typist.ask("x=asleep");
      await typist.leave();
      await engine.suspend.suspend(id, call);
      await engine.suspend.suspend(id, call);
      assert.equal((await factsOf(harness.engine(), id))?.status, "suspended");
      await engine.start(id, call);
      typist = await Typist.at(engine, id, call);
      assert.equal(await typist.ask("echo $x $(grep -c ^processor /proc/cpuinfo)"), "asleep 2");
      await until(() => events.length > 0);
    } finally {
      cancel.abort();
      await watching;
    }
    assert.deepEqual(
      events.map(({ kind }) => kind),
      ["started"],
    );
  });

  it("is copied to files that need no other while it runs, and when it does not", async () => {
    await writeData("cpy");
    for (const [round, running] of [true, false].entries()) {
      if (!running) await engine.stop(id, { signal: "SIGTERM", graceMs: 30_000 }, call);
      const directory = join(harness.directory, `export-${round}`);
      mkdirSync(directory);
      const exported = await engine.export.exportDisks(id, directory, call);
      assert.deepEqual(
        exported.map(({ name }) => name),
        ["root", "script", "data"],
      );
      assert.deepEqual(readdirSync(directory).sort(), ["data.qcow2", "root.qcow2", "script.qcow2"]);
      const { stdout } = await run(["qemu-img", "info", "--output=json", join(directory, "root.qcow2")], {}, call);
      assert.equal((JSON.parse(stdout) as Record<string, unknown>)["backing-filename"], undefined);
      const raw = join(directory, "data.raw");
      await run(["qemu-img", "convert", "-O", "raw", join(directory, "data.qcow2"), raw], {}, call);
      const { stdout: head } = await run(["head", "-c", "3", raw], {}, call);
      assert.equal(head, "cpy");
    }
    assert.equal((await factsOf(engine, id))?.exit?.code, 0);
  });

  it("goes back to disks without memory, and forgets snapshots", async () => {
    await engine.snapshots.revert(id, { name: "cold", mark: "second" }, call);
    const facts = await factsOf(engine, id);
    assert.deepEqual([facts?.status, facts?.revertMark, facts?.exit], ["created", "second", undefined]);
    await engine.start(id, call);
    await typist.leave();
    typist = await Typist.at(engine, id, call);
    await typist.until(/ready/);
    assert.equal(await readData(), "two");
    await engine.snapshots.removeSnapshot(id, "warm", call);
    await engine.snapshots.removeSnapshot(id, "warm", call);
    await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
    await engine.snapshots.removeSnapshot(id, "cold", call);
    assert.deepEqual(await engine.snapshots.listSnapshots(id, call), []);
    const { stdout } = await run(["qemu-img", "snapshot", "-l", launch.disks[0]?.disk.path ?? ""], {}, call);
    assert.equal(stdout.trim(), "");
    await untilLogged(engine, id, "ready", call);
  });
});

/** The disk with this serial number, as the guest calls it. */
function disk(name: string): string {
  return `$(cd /sys/block; for d in vd*; do [ "$(cat $d/serial)" = ${name} ] && echo /dev/$d; done)`;
}
