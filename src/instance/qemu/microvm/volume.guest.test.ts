import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { instanceId } from "../../../base/id.ts";
import { lines, textOf, untilExited } from "../../contract-suite.ts";
import type { MicrovmEngine } from "./engine.ts";
import { HostHarness } from "./host.fixture.ts";

describe("single files of the host in microVMs", () => {
  const call = backgroundCall();
  let harness: HostHarness;
  let engine: MicrovmEngine;

  before(async () => {
    harness = await HostHarness.open();
    engine = harness.engine();
  });
  after(async () => {
    for (const { id } of await engine.list(call)) await engine.remove(id, call);
    await harness.dispose();
  });

  it("are written to where they are, or copied where they may only be read, and nothing beside them is seen", async () => {
    const path = (name: string): string => join(harness.directory, name);
    for (const name of ["shared", "copied", "beside"]) writeFileSync(path(name), `${name}\n`);
    const id = instanceId("file", "web", 1, "0123abcd");
    const script = "cat /a/shared /a/copied; echo more >> /a/shared; echo no > /a/copied || echo kept; ls /a";
    const launch = await harness.launch(id, {
      argv: ["sh", "-c", script],
      mounts: [
        { kind: "bind", source: path("shared"), destination: "/a/shared", readOnly: false },
        { kind: "bind", source: path("copied"), destination: "/a/copied", readOnly: true },
      ],
    });
    await engine.create(launch, call);
    await engine.start(id, call);
    await untilExited(engine, id);
    const said = (await lines(engine, id, { follow: false }, call)).filter(({ stream }) => stream === "stdout");
    assert.deepEqual(said.map(textOf), ["shared", "copied", "kept", "copied", "shared"]);
    assert.equal(readFileSync(path("shared"), "utf8"), "shared\nmore\n");
    assert.equal(readFileSync(path("copied"), "utf8"), "copied\n");
  });
});
