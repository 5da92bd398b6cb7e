import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { type InstanceId, instanceId } from "../../base/id.ts";
import type { InstanceEvent, ProgramLaunch } from "../contract.ts";
import { factsOf, lines, refused, textOf, until, untilExited } from "../contract-suite.ts";
import { findHierarchies, openCgroups } from "../../host/cgroup.ts";
import type { ContainerEngine } from "./engine.ts";
import { HostHarness } from "./host-harness.ts";
import { layoutOf } from "../monitor/layout.ts";
import { readMonitor } from "../monitor/conmon.ts";

for (const runtime of ["crun", "runc"] as const) {
  describe(`recovery with ${runtime}`, () => {
    const call = backgroundCall();
    const cgroups = openCgroups(findHierarchies());
    let harness: HostHarness;
    let engine: ContainerEngine;
    let last = 0;
    const newId = (): InstanceId => instanceId("back", "web", (last += 1), "0123abcd");
    const pathsOf = (id: InstanceId): ReturnType<ReturnType<typeof layoutOf>["of"]> =>
      layoutOf(harness.home, "container").of(id);
    const started = async (change: Partial<ProgramLaunch> = {}): Promise<InstanceId> => {
      const id = newId();
      await engine.create(await harness.launch(id, change), call);
      await engine.start(id, call);
      return id;
    };
    const nothingIsLeft = (id: InstanceId): void => {
      const paths = pathsOf(id);
      assert.equal(cgroups.exists(paths.cgroup), false, "its control groups are gone");
      for (const path of [paths.dir, paths.exitFile, paths.stateDir, paths.socketLink, paths.logDir]) {
        assert.equal(existsSync(path), false, `${path} is gone`);
      }
    };

    before(async () => {
      harness = await HostHarness.open(runtime);
      engine = harness.engine();
    });
    after(async () => {
      for (const { id } of await engine.list(call)) await engine.remove(id, call);
      await harness.dispose();
    });

    it("sees at once that a monitor was killed, and repairs by creating again", async () => {
      const cancel = new AbortController();
      const events: InstanceEvent[] = [];
      const watching = (async () => {
        for await (const event of engine.watch(backgroundCall(call.clock, cancel.signal))) events.push(event);
      })();
      const id = await started();
      const monitor = readMonitor(pathsOf(id));
      assert.ok(monitor !== undefined);
      process.kill(monitor.pid, "SIGKILL");
      await until(() => events.some((event) => event.kind === "broken" && event.id === id));
      const facts = await factsOf(harness.engine(), id);
      assert.equal(facts?.intact, false);
      assert.equal(facts?.status, "running");
      await refused(engine.start(id, call), "precondition");
      await engine.create(await harness.launch(id), call);
      await engine.start(id, call);
      assert.equal((await factsOf(engine, id))?.intact, true);
      cancel.abort();
      await watching;
      await engine.remove(id, call);
      nothingIsLeft(id);
    });

    it("stops and removes an instance whose monitor was killed", async () => {
      const id = await started();
      process.kill(readMonitor(pathsOf(id))?.pid ?? 0, "SIGKILL");
      await engine.stop(id, { signal: "SIGTERM", graceMs: 50 }, call);
      const facts = await factsOf(engine, id);
      assert.equal(facts?.status, "exited");
      assert.equal(facts?.exit?.code, 137);
      await engine.remove(id, call);
      nothingIsLeft(id);
    });

    it("leaves nothing of a monitor that is killed while it tells the exit code", async () => {
      // It writes a file beside and renames it. Removed at once, the program's end and the monitor's are one moment.
      for (let round = 0; round < 20; round += 1) {
        const id = await started();
        process.kill((await factsOf(engine, id))?.pid ?? 0, "SIGKILL");
        await engine.remove(id, call);
        assert.deepEqual(readdirSync(dirname(pathsOf(id).exitFile)), []);
      }
      const id = await started();
      writeFileSync(`${pathsOf(id).exitFile}.A1B2C3`, "1");
      await engine.remove(id, call);
      assert.deepEqual(readdirSync(dirname(pathsOf(id).exitFile)), []);
    });

    it("converges when monitor and program are killed together", async () => {
      const id = await started();
      const pid = (await factsOf(engine, id))?.pid ?? 0;
      process.kill(readMonitor(pathsOf(id))?.pid ?? 0, "SIGKILL");
      process.kill(pid, "SIGKILL");
      const facts = await untilExited(harness.engine(), id);
      assert.equal(facts.exit?.code, 137);
      await engine.start(id, call);
      assert.equal((await factsOf(engine, id))?.intact, true);
      await engine.remove(id, call);
      nothingIsLeft(id);
    });

    it("leaves nothing, and starts again, when the runtime or the monitor is killed while it makes the container", async () => {
      for (let round = 0; round < 12; round += 1) {
        const id = newId();
        await engine.create(await harness.launch(id), call);
        const starting = engine.start(id, call).then(
          () => "started",
          () => "refused",
        );
        // A moment later in each round, so that every step of the runtime meets it once.
        await until(() => existsSync(pathsOf(id).monitorFile));
        await call.clock.sleep(round);
        const monitor = readMonitor(pathsOf(id))?.pid ?? 0;
        for (const victim of round % 2 === 0 ? [monitor] : childrenOf(monitor)) kill(victim);
        await starting;
        const facts = await factsOf(engine, id);
        assert.ok(facts !== undefined);
        await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
        await engine.start(id, call);
        assert.equal((await factsOf(engine, id))?.status, "running");
        await engine.remove(id, call);
        nothingIsLeft(id);
      }
    });

    it("goes on with a container that was made and not let go", async () => {
      const id = newId();
      await engine.create(await harness.launch(id, { argv: ["sh", "-c", "echo begun; sleep 1000"] }), call);
      const session = await engine.attach.attach(id, call);
      await session.close();
      const next = harness.engine();
      assert.equal((await factsOf(next, id))?.status, "created");
      await next.start(id, call);
      assert.equal((await factsOf(next, id))?.status, "running");
      await until(async () =>
        (await lines(next, id, { follow: false }, call)).some((line) => textOf(line) === "begun"),
      );
      await next.remove(id, call);
      nothingIsLeft(id);
    });

    it("removes half of a preparation", async () => {
      const id = newId();
      const launch = await harness.launch(id, { workdir: "/proc" });
      await refused(engine.create(launch, call), "invalid");
      assert.equal((await factsOf(engine, id))?.intact, false);
      await engine.remove(id, call);
      nothingIsLeft(id);
    });

    it("keeps the monitor out of the daemon's control group and session", async () => {
      const id = await started();
      const monitor = readMonitor(pathsOf(id))?.pid ?? 0;
      const groups = readFileSync(`/proc/${monitor}/cgroup`, "utf8");
      assert.match(
        groups,
        new RegExp(`name=systemd:/${harness.home.prefix}/monitor|^0::/${harness.home.prefix}/monitor`, "m"),
      );
      const session = Number(readFileSync(`/proc/${monitor}/stat`, "utf8").split(") ")[1]?.split(" ")[3]);
      assert.equal(session, monitor);
      await engine.remove(id, call);
    });

    it("bounds a log, keeps the part before, and follows across", async () => {
      const maxBytes = 60_000;
      const script =
        "i=0; while [ $i -lt 2000 ]; do echo line $i 0123456789012345678901234567890123456789; i=$((i+1)); done";
      const id = newId();
      await engine.create(await harness.launch(id, { argv: ["sh", "-c", script], log: { maxBytes } }), call);
      const followed = lines(engine, id, { follow: true }, call);
      await engine.start(id, call);
      const text = (await followed).map(textOf);
      assert.equal(text.at(-1)?.startsWith("line 1999 "), true);
      const sizes = readdirSync(pathsOf(id).logDir).map((name) => readFileSync(join(pathsOf(id).logDir, name)).length);
      for (const size of sizes) assert.ok(size <= maxBytes, `a file of the log has ${size} bytes`);
      const kept = (await lines(engine, id, { follow: false }, call)).map(textOf);
      assert.equal(kept.at(-1)?.startsWith("line 1999 "), true);
      assert.deepEqual((await lines(engine, id, { follow: false, tail: 3 }, call)).map(textOf), kept.slice(-3));
      await engine.remove(id, call);
    });
  });
}

function childrenOf(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return existsSync(path) ? readFileSync(path, "utf8").split(" ").filter(Boolean).map(Number) : [];
}

function kill(pid: number): void {
  try {
    if (pid > 0) process.kill(pid, "SIGKILL");
  } catch {
    // It was faster.
  }
}
