import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { backgroundCall, type Call } from "../base/call.ts";
import { isFault, type Reason } from "../base/fault.ts";
import { type InstanceId, instanceId } from "../base/id.ts";
import type {
  Engine,
  InstanceEvent,
  InstanceFacts,
  Launch,
  LogLine,
  LogRange,
  ProgramLaunch,
  Session,
} from "./contract.ts";

/** What a driver brings to run the suite. Made for each suite, and disposed of at its end. */
export interface Harness {
  /** Another engine object over the same world, as a daemon makes after it was killed. */
  engine(): Engine;
  /** A launch of an instance with a small root that has `sh`, `sleep`, `cat`, `echo` and `true`. */
  launch(id: InstanceId, change?: Partial<ProgramLaunch>): Promise<Launch>;
  dispose(): Promise<void>;
}

/**
 * What a launch of the harness is: a program; or a full machine, whose system runs the script on its serial console and
 * switches itself off when that ends. So its code is 0, its output is one stream, and nothing is run in it or attached.
 */
export type Runs = "program" | "machine";

/**
 * What every engine does alike. Programs are scripts for `sh -c`, which the memory engine understands as far as this
 * suite needs: `sleep`, `echo`, `exit`, `trap`, `cat`, `printf`.
 */
export function engineContract(name: string, open: () => Promise<Harness>, runs: Runs = "program"): void {
  const isMachine = runs === "machine";
  /** The code with which an instance ends whose program ended with this one. */
  const codeOf = (code: number): number => (isMachine ? 0 : code);
  /** What programs are content with is too little for a system. */
  const sizeBytes = (mebibytes: number): number => mebibytes * (isMachine ? 4 : 1) * 2 ** 20;
  describe(`engine ${name}`, () => {
    let harness: Harness;
    let engine: Engine;
    let last = 0;
    const call = backgroundCall();
    const used: InstanceId[] = [];
    const newId = (): InstanceId => {
      last += 1;
      const id = instanceId("suite", "web", last, "0123abcd");
      used.push(id);
      return id;
    };
    const created = async (script: string, change: Partial<ProgramLaunch> = {}): Promise<InstanceId> => {
      const id = newId();
      await engine.create(await harness.launch(id, { argv: ["sh", "-c", script], ...change }), call);
      return id;
    };
    const started = async (script: string, change: Partial<ProgramLaunch> = {}): Promise<InstanceId> => {
      const id = await created(script, change);
      await engine.start(id, call);
      return id;
    };

    before(async () => {
      harness = await open();
      engine = harness.engine();
    });
    after(async () => {
      for (const id of used) await engine.remove(id, call);
      assert.deepEqual(await engine.list(call), [], "nothing is left after everything was removed");
      await harness.dispose();
    });

    it("probes that it works", async () => {
      const probe = await engine.probe(call);
      assert.equal(probe.ok, true, probe.detail);
    });

    it("goes from created to running to exited, and runs again", async () => {
      const id = await created("exit 3");
      assert.equal((await factsOf(engine, id))?.status, "created");
      for (let round = 0; round < 2; round += 1) {
        await engine.start(id, call);
        const facts = await untilExited(engine, id);
        assert.equal(facts.exit?.code, codeOf(3));
        assert.equal(facts.exit?.oomKilled, false);
        assert.equal(facts.intact, true);
      }
    });

    it("repeats every verb without effect when it is already so", async () => {
      const id = await started("sleep 1000");
      const pid = (await factsOf(engine, id))?.pid;
      assert.ok(pid !== undefined && pid > 0);
      await engine.create(await harness.launch(id, { argv: ["sh", "-c", "sleep 1000"] }), call);
      await engine.start(id, call);
      assert.equal((await factsOf(engine, id))?.pid, pid);
      await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
      await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
      await engine.remove(id, call);
      await engine.remove(id, call);
      assert.equal(await factsOf(engine, id), undefined);
    });

    it("refuses what does not fit the state", async () => {
      const id = newId();
      await refused(engine.start(id, call), "precondition");
      await refused(engine.signal(id, "SIGTERM", call), "precondition");
      await engine.create(await harness.launch(id, { argv: ["sh", "-c", "sleep 1000"] }), call);
      await refused(engine.signal(id, "SIGTERM", call), "precondition");
      await engine.start(id, call);
      await refused(engine.signal(id, "SIGNOSUCH", call), "invalid");
      const other = await harness.launch(id, { argv: ["sh", "-c", "sleep 999"] });
      await refused(engine.create(other, call), "precondition");
    });

    it("is found again, with the same process, by another engine object", async () => {
      const id = await started("sleep 1000", { limits: { pids: 60 } });
      const before = await factsOf(engine, id);
      const after = await factsOf(harness.engine(), id);
      assert.deepEqual(after, before);
      assert.equal(after?.status, "running");
      assert.deepEqual(after?.limits, { pids: 60 });
      const next = harness.engine();
      await next.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
      assert.equal((await factsOf(engine, id))?.exit?.code, 137);
    });

    it("stops with the signal, and with SIGKILL after the grace", async () => {
      const polite = await started("trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done");
      await untilLogged(engine, polite, "ready", call);
      await engine.stop(polite, { signal: "SIGTERM", graceMs: 20_000 }, call);
      assert.equal((await factsOf(engine, polite))?.exit?.code, codeOf(7));
      const stubborn = await started("trap '' TERM; echo ready; while true; do sleep 0.05; done");
      await untilLogged(engine, stubborn, "ready", call);
      await engine.stop(stubborn, { signal: "SIGTERM", graceMs: 100 }, call);
      const exit = (await factsOf(engine, stubborn))?.exit;
      assert.equal(exit?.code, 137);
      assert.equal(exit?.signal, "SIGKILL");
    });

    it("tells starts and exits as they come", async () => {
      const cancel = new AbortController();
      const events: InstanceEvent[] = [];
      const watching = (async () => {
        for await (const event of engine.watch(backgroundCall(call.clock, cancel.signal))) events.push(event);
      })();
      const id = await started("exit 4");
      await untilExited(engine, id);
      await until(() => events.some((event) => event.kind === "exited" && event.id === id));
      cancel.abort();
      await watching;
      const mine = events.filter((event) => event.id === id);
      assert.deepEqual(
        mine.map(({ kind }) => kind),
        ["started", "exited"],
      );
      assert.ok(mine[1]?.kind === "exited" && mine[1].exit.code === codeOf(4));
      // What was heard is what is found after a restart.
      const facts = (await engine.list(call)).find((known) => known.id === id);
      assert.ok(mine[0]?.kind === "started" && mine[0].startedMs === facts?.startedMs);
    });

    it("keeps output, its two streams apart, its last lines, and a line without end", async () => {
      const id = await started("for i in 1 2 3; do echo out$i; done; echo err >&2; printf prompt; sleep 1000");
      await untilLogged(engine, id, "prompt", call);
      const all = await lines(engine, id, { follow: false }, call);
      const text = (stream: string): string[] => all.filter((line) => line.stream === stream).map(textOf);
      const out = ["out1", "out2", "out3"];
      assert.deepEqual(text("stdout"), isMachine ? [...out, "err", "prompt"] : [...out, "prompt"]);
      assert.deepEqual(text("stderr"), isMachine ? [] : ["err"]);
      assert.deepEqual(
        all.map((line) => line.partial),
        all.map((line) => textOf(line) === "prompt"),
      );
      assert.equal((await lines(engine, id, { follow: false, tail: 2 }, call)).length, 2);
      assert.deepEqual(await lines(engine, id, { follow: false, tail: 0 }, call), []);
      assert.deepEqual(await lines(engine, id, { follow: false, sinceMs: Number.MAX_SAFE_INTEGER }, call), []);
    });

    it("follows output until the instance exits", async () => {
      const id = await created("echo first; sleep 0.2; echo second; exit 0");
      const following = lines(engine, id, { follow: true }, call);
      await engine.start(id, call);
      assert.deepEqual((await following).map(textOf), ["first", "second"]);
    });

    it("follows the output of one run, also when it runs again at once", async () => {
      const id = await started("echo first; sleep 1000");
      await untilLogged(engine, id, "first", call);
      const following = lines(engine, id, { follow: true }, call);
      await call.clock.sleep(50);
      await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
      await engine.start(id, call);
      const [first] = await following;
      assert.ok(first !== undefined);
      assert.equal(textOf(first), "first");
    });

    it("says so when there is no log", async () => {
      await refused(lines(engine, instanceId("suite", "none", 1, "0123abcd"), { follow: false }, call), "not-found");
    });

    it("removes what is just being started", async () => {
      const id = await created("sleep 1000");
      const starting = engine.start(id, call).catch((error: unknown) => error);
      await engine.remove(id, call);
      await starting;
      assert.equal(await factsOf(engine, id), undefined);
    });

    it("freezes and thaws", async () => {
      const { freeze } = engine;
      assert.ok(freeze !== undefined);
      const id = await started("sleep 1000");
      await freeze.freeze(id, call);
      assert.equal((await factsOf(engine, id))?.status, "frozen");
      await freeze.thaw(id, call);
      assert.equal((await factsOf(engine, id))?.status, "running");
      await freeze.freeze(id, call);
      await engine.stop(id, { signal: "SIGTERM", graceMs: 100 }, call);
      assert.equal((await factsOf(engine, id))?.status, "exited");
    });

    it("changes limits in place, and measures", async () => {
      const { resize, stats, processes } = engine;
      assert.ok(resize !== undefined && stats !== undefined && (isMachine || processes !== undefined));
      const id = await started("echo ready; sleep 1000", { limits: { memoryBytes: sizeBytes(64) } });
      await untilLogged(engine, id, "ready", call);
      const pid = (await factsOf(engine, id))?.pid;
      await resize.resize(id, { memoryBytes: sizeBytes(128), cpus: 0.5, pids: 20 }, call);
      const facts = await factsOf(harness.engine(), id);
      assert.deepEqual(facts?.limits, { memoryBytes: sizeBytes(128), cpus: 0.5, pids: 20 });
      assert.equal(facts?.pid, pid);
      const reading = await stats.stats(id, call);
      assert.equal(reading.memoryLimitBytes, sizeBytes(128));
      assert.ok(reading.pids >= 1 && reading.memoryBytes > 0);
      if (processes !== undefined)
        assert.ok((await processes.processes(id, call)).some(({ command }) => command.includes("sleep 1000")));
      await refused(resize.resize(id, { memoryBytes: 1 }, call), "precondition");
      await engine.stop(id, { signal: "SIGKILL", graceMs: 0 }, call);
      await refused(stats.stats(id, call), "precondition");
    });

    if (isMachine) return;

    it("runs a program inside, with its input, output and exit code", async () => {
      const id = await started("sleep 1000");
      const session = await execFacet(engine).exec(id, execSpec("cat; echo err >&2; exit 5", { stdin: true }), call);
      await session.write(Buffer.from("hello"));
      session.endInput();
      const { stdout, stderr } = await collect(session);
      assert.equal(stdout, "hello");
      assert.equal(stderr, "err\n");
      assert.equal(await session.exited, 5);
    });

    it("refuses to run what is not there, or where nothing runs", async () => {
      const id = await created("sleep 1000");
      const missing = { argv: ["no-such-program"], env: {}, stdin: false };
      await refused(execFacet(engine).exec(id, missing, call), "precondition");
      await engine.start(id, call);
      await refused(execFacet(engine).exec(id, missing, call), "not-found");
    });

    it("brings a signal to the program, and ends it with the session", async () => {
      const id = await started("sleep 1000");
      const signalled = await execFacet(engine).exec(id, execSpec("sleep 1000"), call);
      await signalled.signal("SIGTERM");
      assert.equal(await signalled.exited, 143);
      const closed = await execFacet(engine).exec(id, execSpec("sleep 1000"), call);
      await closed.close();
      assert.equal(await closed.exited, 137);
      assert.equal((await factsOf(engine, id))?.status, "running");
    });

    it("attaches before the start, and hears the first byte and the exit code", async () => {
      const { attach } = engine;
      assert.ok(attach !== undefined);
      const id = await created("echo first; cat; exit 6", { stdin: true });
      const session = await attach.attach(id, call);
      await engine.start(id, call);
      await session.write(Buffer.from("typed"));
      session.endInput();
      const { stdout } = await collect(session);
      assert.equal(stdout, "first\ntyped");
      assert.equal(await session.exited, 6);
    });
  });
}

export async function factsOf(engine: Engine, id: InstanceId): Promise<InstanceFacts | undefined> {
  return (await engine.list(backgroundCall())).find((facts) => facts.id === id);
}

export async function untilExited(engine: Engine, id: InstanceId): Promise<InstanceFacts> {
  let facts: InstanceFacts | undefined;
  await until(async () => {
    facts = await factsOf(engine, id);
    return facts?.status === "exited";
  });
  assert.ok(facts !== undefined);
  return facts;
}

/** Waits for the log to contain a text; with an empty one, until the instance has had time to begin. */
export async function untilLogged(engine: Engine, id: InstanceId, text: string, call: Call): Promise<void> {
  if (text === "") return call.clock.sleep(200);
  await until(async () =>
    (await lines(engine, id, { follow: false }, call)).some((line) => textOf(line).includes(text)),
  );
}

/** Waits for a condition; fails the test after a long time, which no passing test comes near. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const call = backgroundCall();
  for (let tries = 0; tries < 12_000; tries += 1) {
    if (await condition()) return;
    await call.clock.sleep(10);
  }
  assert.fail(`did not become true: ${condition.toString()}`);
}

export async function lines(engine: Engine, id: InstanceId, range: LogRange, call: Call): Promise<LogLine[]> {
  const found: LogLine[] = [];
  for await (const line of engine.logs(id, range, call)) found.push(line);
  return found;
}

export function textOf(line: LogLine): string {
  return Buffer.from(line.bytes).toString("utf8");
}

export async function collect(session: Session): Promise<{ stdout: string; stderr: string }> {
  const text = { stdout: "", stderr: "" };
  for await (const { stream, bytes } of session.output) text[stream] += Buffer.from(bytes).toString("utf8");
  return text;
}

export async function refused(work: Promise<unknown>, reason: Reason): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(isFault(error), String(error));
    assert.equal(error.reason, reason, error.message);
    return true;
  });
}

export function execSpec(
  script: string,
  change: { stdin?: boolean } = {},
): Parameters<NonNullable<Engine["exec"]>["exec"]>[1] {
  return { argv: ["sh", "-c", script], env: {}, stdin: false, ...change };
}

export function execFacet(engine: Engine): NonNullable<Engine["exec"]> {
  assert.ok(engine.exec !== undefined);
  return engine.exec;
}
