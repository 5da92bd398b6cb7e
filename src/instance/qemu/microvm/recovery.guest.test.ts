import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { type InstanceId, instanceId } from "../../../base/id.ts";
import { findHierarchies, openCgroups } from "../../../host/cgroup.ts";
import { dataExtents } from "../../../host/sparse.ts";
import type { InstanceEvent, ProgramLaunch } from "../../contract.ts";
import { factsOf, lines, textOf, until, untilExited } from "../../contract-suite.ts";
import { type InstancePaths, layoutOf } from "../../monitor/layout.ts";
import { readMonitor } from "../../monitor/conmon.ts";
import type { MicrovmEngine } from "./engine.ts";
import { HostHarness } from "./host.fixture.ts";
import { observeMachine } from "./observe.ts";
import { machinePaths } from "./place.ts";
import { volumesCgroup } from "./volume.ts";

describe("recovery of microVMs", () => {
  const call = backgroundCall();
  const cgroups = openCgroups(findHierarchies());
  let harness: HostHarness;
  let engine: MicrovmEngine;
  let last = 0;
  const newId = (): InstanceId => instanceId("back", "web", (last += 1), "0123abcd");
  const pathsOf = (id: InstanceId): InstancePaths => layoutOf(harness.home, "microvm").of(id);
  const started = async (change: Partial<ProgramLaunch> = {}): Promise<InstanceId> => {
    const id = newId();
    await engine.create(await harness.launch(id, change), call);
    await engine.start(id, call);
    return id;
  };
  const nothingIsLeft = (id: InstanceId): void => {
    const paths = pathsOf(id);
    for (const group of [paths.cgroup, volumesCgroup(paths.cgroup)]) assert.equal(cgroups.exists(group), false, group);
    for (const path of [paths.dir, paths.exitFile, paths.stateDir, paths.socketLink, paths.logDir]) {
      assert.equal(existsSync(path), false, `${path} is gone`);
    }
  };
  /** A volume that the host serves to an instance. */
  const volume = (): ProgramLaunch["mounts"] => {
    const source = join(harness.directory, "data");
    mkdirSync(source, { recursive: true });
    return [{ kind: "bind", source, destination: "/data", readOnly: false }];
  };

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
  });
  after(async () => {
    for (const { id } of await engine.list(call)) await engine.remove(id, call);
    await harness.dispose();
  });

  it("goes on, or begins anew, wherever a daemon was killed on the way to running", async () => {
    // From before the machine is made until after its program runs, however busy this host is.
    const moments: readonly ((id: InstanceId, said: () => string) => boolean)[] = [
      (_id, said) => said().includes("created"),
      (id) => existsSync(pathsOf(id).monitorFile),
      (id) => existsSync(machinePaths(pathsOf(id)).controlSocket),
      (id) =>
        observeMachine(pathsOf(id), cgroups).main !== undefined && !observeMachine(pathsOf(id), cgroups).awaitsMachine,
      (_id, said) => said().includes("started"),
    ];
    for (const isReached of moments) {
      const id = newId();
      const launch = await harness.launch(id, { mounts: volume() });
      const file = join(harness.directory, "launch.json");
      writeFileSync(file, JSON.stringify(launch));
      const daemon = startDaemon(harness, file);
      let said = "";
      daemon.stdout?.on("data", (bytes) => (said += String(bytes)));
      const ended = new Promise((resolve) => daemon.once("exit", resolve));
      try {
        await until(() => isReached(id, () => said));
      } finally {
        daemon.kill("SIGKILL");
        await ended;
      }
      const before = await factsOf(engine, id);
      assert.ok(before !== undefined);
      if (!before.intact) await engine.create(launch, call);
      await engine.start(id, call);
      const facts = await factsOf(engine, id);
      assert.equal(facts?.status, "running");
      assert.equal(facts?.intact, true);
      if (said.includes("started")) assert.deepEqual([facts?.pid, facts?.startedMs], [before.pid, before.startedMs]);
      await engine.remove(id, call);
      nothingIsLeft(id);
    }
  });

  it("sees that a monitor was killed, and repairs by creating again", async () => {
    const id = await started();
    process.kill(readMonitor(pathsOf(id))?.pid ?? 0, "SIGKILL");
    await until(async () => (await factsOf(engine, id))?.intact === false);
    await engine.create(await harness.launch(id), call);
    await engine.start(id, call);
    assert.equal((await factsOf(engine, id))?.intact, true);
    await engine.remove(id, call);
    nothingIsLeft(id);
  });

  it("tells that QEMU was killed as an exit, and starts it again on the same disk", async () => {
    const script = "cat /kept; echo kept >/kept; sync; echo written; sleep 1000";
    const id = await started({ argv: ["sh", "-c", script] });
    await until(async () =>
      (await lines(engine, id, { follow: false }, call)).some((line) => textOf(line) === "written"),
    );
    process.kill((await factsOf(engine, id))?.pid ?? 0, "SIGKILL");
    const facts = await untilExited(harness.engine(), id);
    assert.deepEqual([facts.exit?.code, facts.exit?.signal], [137, "SIGKILL"]);
    await engine.start(id, call);
    await until(async () => (await lines(engine, id, { follow: false }, call)).some((line) => textOf(line) === "kept"));
    await engine.remove(id, call);
    nothingIsLeft(id);
  });

  it("tells that nobody serves a volume any more", async () => {
    const cancel = new AbortController();
    const events: InstanceEvent[] = [];
    const watching = (async () => {
      for await (const event of engine.watch(backgroundCall(call.clock, cancel.signal))) events.push(event);
    })();
    try {
      const id = await started({ mounts: volume() });
      assert.equal((await factsOf(engine, id))?.intact, true);
      // One of them may be another one's child, and be gone with it.
      for (const pid of cgroups.pids(volumesCgroup(pathsOf(id).cgroup))) spawnSync("kill", ["-9", String(pid)]);
      await until(() => events.some((event) => event.kind === "broken" && event.id === id));
      assert.equal((await factsOf(harness.engine(), id))?.intact, false);
      await engine.remove(id, call);
      nothingIsLeft(id);
    } finally {
      cancel.abort();
      await watching;
    }
  });

  it("takes no harm from root who fills the port on which the guest tells how it ended", async () => {
    const script =
      "busybox mknod /flood c $(cat /sys/class/virtio-ports/vport*p5/dev | busybox tr : ' '); echo flood >/flood; yes >/flood & sleep 5; echo done; exec sleep 1000";
    const id = await started({ argv: ["sh", "-c", script] });
    await until(async () => (await lines(engine, id, { follow: false }, call)).some((line) => textOf(line) === "done"));
    const { exitFile } = machinePaths(pathsOf(id));
    assert.ok(statSync(exitFile).size > 0, "it was written to");
    assert.ok(statSync(exitFile).blocks <= 128, "and takes no room");
    assert.equal((await factsOf(engine, id))?.status, "running");
    await engine.stop(id, { signal: "SIGKILL", graceMs: 1_000 }, call);
    assert.equal((await untilExited(harness.engine(), id)).exit?.oomKilled, false);
    await engine.remove(id, call);
    nothingIsLeft(id);
  });

  it("gives up a guest that does not come in time, says so, and leaves nothing of it running", async () => {
    const hasty = harness.engine({ bootTimeoutMs: 20 });
    const id = newId();
    await hasty.create(await harness.launch(id, { warmStart: false }), call);
    await assert.rejects(hasty.start(id, call), {
      reason: "timeout",
      message: new RegExp(`start ${id}: boot its guest`),
    });
    assert.equal((await factsOf(hasty, id))?.status, "created");
    assert.equal(cgroups.exists(pathsOf(id).cgroup), false);
    await engine.remove(id, call);
    nothingIsLeft(id);
  });

  it("says that there is no kernel, and that a disk holds no file system", async () => {
    const id = newId();
    const missing = engine.create(await harness.launch(id, { kernelPath: "/no/such/kernel" }), call);
    await assert.rejects(missing, { reason: "unsupported", message: /no kernel at \/no\/such\/kernel/ });
    const noKernel = engine.create(await harness.launch(id, { kernelPath: "/bin/busybox" }), call);
    await assert.rejects(noKernel, { reason: "unsupported", message: /not a kernel/ });
    assert.equal(await factsOf(engine, id), undefined);
    const launch = await harness.launch(id);
    assert.ok(launch.root.kind === "block" && launch.root.writable !== undefined);
    writeFileSync(launch.root.writable, Buffer.alloc(1 << 20));
    await engine.create(launch, call);
    await assert.rejects(engine.start(id, call), { reason: "failed", message: /put the root together/ });
    await engine.remove(id, call);
    nothingIsLeft(id);
  });

  it("goes on from a saved memory as somebody else, and keeps no secret in it", async () => {
    await engine.settled();
    const secret = "a secret of 1 instance";
    const seen: string[][] = [];
    for (let round = 0; round < 3; round += 1) {
      const id = newId();
      const script =
        "cat /proc/sys/kernel/random/uuid /run/secret; hostname; date +%s; cat /proc/net/fib_trie | grep 10.86";
      const launch = await harness.launch(id, {
        argv: ["sh", "-c", script],
        env: { TOKEN: secret },
        hostname: `web-${round}`,
        mounts: [
          { kind: "file", destination: "/run/secret", content: Buffer.from(`${secret}\n`), mode: 0o400, secret: true },
        ],
      });
      await engine.create(launch, call);
      await engine.start(id, call);
      await untilExited(engine, id);
      const said = (await lines(engine, id, { follow: false }, call)).map(textOf);
      seen.push(said);
      assert.deepEqual([said[1], said[2]], [secret, `web-${round}`]);
      assert.ok(Math.abs(Number(said[3]) * 1000 - call.clock.nowMs()) < 60_000, "its clock is right");
      assert.ok(said.some((line) => line.includes("10.86.9.7")));
      assert.ok(launch.root.kind === "block" && launch.root.writable !== undefined);
      assert.equal(holds(launch.root.writable, secret), false, "not on its disk");
      await engine.remove(id, call);
      await engine.settled();
    }
    assert.equal(new Set(seen.map(([uuid]) => uuid)).size, 3, "each has random numbers of its own");
    const kept = join(harness.home.libDir, "guest", "warm");
    assert.equal(existsSync(kept), true, "a memory was saved");
  });

  it("keeps what it wrote, and knows its name, however it was started", async () => {
    const id = newId();
    // From a memory with its root put together, or booting; then, with something on its disk, booting, and from a memory.
    for (const [run, text] of ["one", "two", "three", "four"].entries()) {
      await engine.settled();
      const launch = await harness.launch(id, { argv: ["sh", "-c", rememberScript(text)], hostname: `host-${text}` });
      await engine.create(launch, call);
      await engine.start(id, call);
      await untilExited(engine, id);
      const said = (await lines(engine, id, { follow: false }, call))
        .map(textOf)
        .filter((line) => !line.includes("cat:"));
      assert.deepEqual(said.slice(-run - 2), [`host-${text}`, ...["one", "two", "three"].slice(0, run), "0"]);
    }
    await engine.remove(id, call);
    nothingIsLeft(id);
  });

  it("keeps a memory of each kind, however many start at once", async () => {
    const kept = join(harness.home.libDir, "guest", "warm");
    rmSync(kept, { recursive: true, force: true });
    const anew = harness.engine();
    const ids = await Promise.all(
      // Guests of 256 MiB, and of 512.
      [96, 256, 256].map(async (mebibytes) => {
        const id = newId();
        const limits = { memoryBytes: mebibytes * 2 ** 20 };
        await anew.create(await harness.launch(id, { argv: ["sleep", "1000"], limits }), call);
        await anew.start(id, call);
        return id;
      }),
    );
    await anew.settled();
    assert.equal(readdirSync(kept).length, 2);
    for (const id of ids) await anew.remove(id, call);
  });

  it("is given randomness while its memory is saved by nobody, and all who go on from it some", async () => {
    await engine.settled();
    // The same memory every time anew: who waits for randomness in it must not keep it from being saved.
    const kept = join(harness.home.libDir, "guest", "warm");
    for (let round = 0; round < 4; round += 1) {
      rmSync(kept, { recursive: true, force: true });
      const anew = harness.engine();
      const id = newId();
      await anew.create(await harness.launch(id, { argv: ["sleep", "1000"] }), call);
      await anew.start(id, call);
      await anew.settled();
      assert.equal(readdirSync(kept).length, 1, "it was saved");
      await anew.remove(id, call);
    }
  });
});

/** Says the instance's name, what it remembers and how its name is known, and remembers the text. */
function rememberScript(text: string): string {
  return `cat /etc/hostname /kept; cat /etc/hosts | grep -c 127.0.1.1; echo ${text} >>/kept`;
}

/** Whether the text is anywhere in what a sparse file really holds. */
function holds(path: string, text: string): boolean {
  const fd = openSync(path, "r");
  try {
    for (const { offset, sizeBytes } of dataExtents(fd)) {
      const bytes = Buffer.alloc(sizeBytes);
      readSync(fd, bytes, 0, sizeBytes, offset);
      if (bytes.includes(text)) return true;
    }
    return false;
  } finally {
    closeSync(fd);
  }
}

function startDaemon(harness: HostHarness, launchFile: string): ChildProcess {
  const fixture = join(import.meta.dirname, "start.fixture.ts");
  const argv = ["--disable-warning=ExperimentalWarning", fixture, harness.directory, harness.runtime, launchFile];
  return spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "inherit"] });
}
