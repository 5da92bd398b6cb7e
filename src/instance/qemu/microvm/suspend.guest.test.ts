import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { type InstanceId, instanceId } from "../../../base/id.ts";
import type { InstanceEvent } from "../../contract.ts";
import { factsOf, lines, refused, textOf, until } from "../../contract-suite.ts";
import type { MicrovmEngine } from "./engine.ts";
import { HostHarness } from "./host.fixture.ts";

describe("microVMs that are put to sleep", () => {
  const call = backgroundCall();
  const secret = "a secret in its memory";
  let harness: HostHarness;
  let engine: MicrovmEngine;
  let id: InstanceId;
  /** The numbers that the program counted, and the times it had. */
  const counted = async (): Promise<number[][]> =>
    (await said()).filter((text) => /^\d+ \d+$/.test(text)).map((text) => text.split(" ").map(Number));
  const said = async (): Promise<string[]> => (await lines(engine, id, { follow: false }, call)).map(textOf);
  /** What a program in it says that is not its own. */
  const asked = async (): Promise<string> => {
    const spec = { argv: ["echo", "well"], env: {}, stdin: false };
    const session = await engine.exec.exec(id, spec, call);
    let text = "";
    for await (const { bytes } of session.output) text += Buffer.from(bytes).toString("utf8");
    return text;
  };
  const memoryFile = (): string => join(harness.home.libDir, "guest", "suspended", id);

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
    id = instanceId("sleep", "web", 1, "0123abcd");
    const script = "i=0; while true; do i=$((i + 1)); echo $i $(date +%s); sleep 0.2; done";
    await engine.create(await harness.launch(id, { argv: ["sh", "-c", script], env: { TOKEN: secret } }), call);
  });
  after(async () => {
    await engine.remove(id, call);
    await harness.dispose();
  });

  it("go on where they were, by another engine object, with the right time", async () => {
    const cancel = new AbortController();
    const events: InstanceEvent[] = [];
    const watching = (async () => {
      for await (const event of engine.watch(backgroundCall(call.clock, cancel.signal))) events.push(event);
    })();
    await engine.start(id, call);
    await until(async () => (await counted()).length >= 3);
    assert.equal(await asked(), "well\n");
    const before = await factsOf(engine, id);
    await engine.suspend.suspend(id, call);
    await engine.suspend.suspend(id, call);
    const asleep = await factsOf(harness.engine(), id);
    assert.deepEqual([asleep?.status, asleep?.pid, asleep?.startedMs], ["suspended", undefined, before?.startedMs]);
    const known = (await counted()).length;
    await call.clock.sleep(3_000);
    assert.equal((await counted()).length, known, "nothing of it runs");
    await harness.engine().start(id, call);
    assert.equal((await factsOf(engine, id))?.status, "running");
    assert.equal((await factsOf(engine, id))?.startedMs, before?.startedMs);
    assert.equal(existsSync(memoryFile()), false);
    await until(async () => (await counted()).length >= known + 3);
    const numbers = await counted();
    assert.deepEqual(
      numbers.map(([number]) => number),
      numbers.map((_, index) => index + 1),
      "it went on counting",
    );
    assert.equal(await asked(), "well\n");
    assert.ok(Math.abs((numbers.at(-1)?.[1] ?? 0) * 1000 - call.clock.nowMs()) < 30_000);
    cancel.abort();
    await watching;
    assert.equal(
      events.some(({ kind }) => kind === "exited"),
      false,
    );
  });

  it("have nothing on disk that can be read, and boot when it was changed", async () => {
    await engine.suspend.suspend(id, call);
    const saved = readFileSync(memoryFile());
    assert.ok(saved.length > 2 ** 20);
    assert.equal(saved.includes(secret), false);
    assert.equal(saved.includes("Linux version"), false);
    saved[saved.length >> 1] = (saved[saved.length >> 1] ?? 0) ^ 1;
    writeFileSync(memoryFile(), saved);
    const known = (await counted()).length;
    await engine.start(id, call);
    assert.equal((await factsOf(engine, id))?.status, "running");
    await until(async () => (await counted()).length > known);
    assert.equal((await counted())[known]?.[0], 1, "it began anew");
    assert.match((await said()).join("\n"), /its saved memory cannot be resumed, so it boots: /);
  });

  it("have exited once they were stopped, and are no more than others", async () => {
    await engine.suspend.suspend(id, call);
    await refused(engine.signal(id, "SIGTERM", call), "precondition");
    await engine.stop(id, { signal: "SIGTERM", graceMs: 100 }, call);
    const facts = await factsOf(engine, id);
    assert.deepEqual([facts?.status, facts?.exit?.code], ["exited", 0]);
    assert.equal(existsSync(memoryFile()), false);
    await refused(engine.suspend.suspend(id, call), "precondition");
  });
});
