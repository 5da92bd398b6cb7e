import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { type InstanceId, instanceId } from "../../../base/id.ts";
import { lines, textOf, untilExited } from "../../contract-suite.ts";
import type { MicrovmEngine } from "./engine.ts";
import { HostHarness } from "./host.fixture.ts";

/** More than a machine has places for. */
const count = 40;

describe("microVMs of images with many layers", () => {
  const call = backgroundCall();
  let harness: HostHarness;
  let engine: MicrovmEngine;
  let last = 0;
  /** What the program says in a root of all layers. */
  const said = async (script: string): Promise<string[]> => {
    const id: InstanceId = instanceId("layers", "web", (last += 1), "0123abcd");
    await engine.create(await harness.launch(id, { argv: ["sh", "-c", script] }), call);
    await engine.start(id, call);
    await untilExited(engine, id);
    return (await lines(engine, id, { follow: false }, call)).map(textOf);
  };

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
    const numbers = Array.from({ length: count }, (_, index) => index);
    harness.more = await Promise.all(
      numbers.map((number) => harness.layer(`layer${number}`, { [`own${number}`]: `${number}\n`, top: `${number}\n` })),
    );
  });
  after(async () => {
    for (const { id } of await engine.list(call)) await engine.remove(id, call);
    await harness.dispose();
  });

  const script = `cat /own* | wc -l; cat /top; echo written > /top; cat /top`;

  it("have all of them, in their order, and can be written to", async () => {
    assert.deepEqual(await said(script), [String(count), String(count - 1), "written"]);
  });

  it("go on from the memory of another as those with few do", async () => {
    await engine.settled();
    assert.deepEqual(await said(script), [String(count), String(count - 1), "written"]);
  });
});
