import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { type InstanceId, instanceId } from "../../../base/id.ts";
import type { MicrovmEngine } from "./engine.ts";
import { HostHarness } from "./host.fixture.ts";

describe("programs in microVMs", () => {
  const call = backgroundCall();
  const id: InstanceId = instanceId("exec", "web", 1, "0123abcd");
  let harness: HostHarness;
  let engine: MicrovmEngine;

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
    await engine.create(await harness.launch(id), call);
    await engine.start(id, call);
  });
  after(async () => {
    await engine.remove(id, call);
    await harness.dispose();
  });

  const oneAfterTheOther = async (who: string): Promise<void> => {
    for (let number = 1; number <= 25; number += 1) {
      const argv = ["sh", "-c", `echo ${who} ${number}; echo aside >&2; exit ${number}`];
      const session = await engine.exec.exec(id, { argv, env: {}, stdin: false }, call);
      const said = { stdout: "", stderr: "" };
      for await (const { stream, bytes } of session.output) said[stream] += Buffer.from(bytes).toString("utf8");
      const all = { ...said, code: await session.exited };
      assert.deepEqual(all, { stdout: `${who} ${number}\n`, stderr: "aside\n", code: number });
      await session.close();
    }
  };

  it("begin one after the other beside those that end, each with its own output and exit code", async () => {
    await Promise.all([oneAfterTheOther("left"), oneAfterTheOther("right")]);
  });
});
