import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { homeBeneath } from "../../../base/home.ts";
import { instanceId } from "../../../base/id.ts";
import { settled, TestClock } from "../../../base/test-clock.ts";
import { layoutOf } from "../../monitor/layout.ts";
import { type MachinePaths, machinePaths } from "./place.ts";
import { handOver } from "./start.ts";

describe("handing a guest its launch", () => {
  let directory: string;
  let machine: MachinePaths;
  let server: Server;
  let clock: TestClock;
  /** Those at the guest's port, one after the other, and what it does with what they say. */
  let visitors: Socket[];
  let hears: (line: string, visitor: Socket) => void;

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "start."));
    machine = machinePaths(layoutOf(homeBeneath(directory), "microvm").of(instanceId("shop", "web", 1, "0123abcd")));
    mkdirSync(machine.socketDir, { recursive: true });
    clock = new TestClock();
    visitors = [];
    server = createServer((socket) => {
      visitors.push(socket);
      socket.on("error", () => {});
      socket.on("data", (bytes) => {
        for (const line of String(bytes).split("\n").filter(Boolean)) hears(line, socket);
      });
    });
    await new Promise<void>((resolve) => server.listen(machine.controlSocket, resolve));
  });
  afterEach(() => {
    for (const socket of visitors) socket.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });

  const handing = (fresh: "booting" | "unknown"): Promise<void> => {
    return handOver(
      "start it",
      machine,
      () => Promise.resolve(Buffer.from("launch\n")),
      () => true,
      { fresh, limitMs: 60_000 },
      backgroundCall(clock),
    );
  };

  it("comes again to a guest that takes the first word for a part of what another daemon sent", async () => {
    hears = (line, visitor) => {
      if (visitor === visitors[0]) return;
      if (line === "hello") visitor.write("ready\n");
      if (line === "launch") visitor.write("started 7\n");
    };
    const handed = handing("unknown");
    while (visitors.length === 0 || clock.waiting < 2) await settled();
    await clock.advance(3_300);
    await handed;
    assert.equal(visitors.length, 2);
    assert.equal(clock.waiting, 0);
  });

  it("stays with one that boots, however long it takes", async () => {
    hears = () => {};
    const handed = handing("booting");
    while (visitors.length === 0) await settled();
    await clock.advance(30_000);
    visitors[0]?.write("ready\n");
    hears = (line, visitor) => void (line === "launch" && visitor.write("started 7\n"));
    await handed;
    assert.equal(visitors.length, 1);
  });

  it("ends in time with one that never answers", async () => {
    hears = () => {};
    const handed = handing("unknown");
    handed.catch(() => {});
    while (visitors.length === 0) await settled();
    await clock.advance(60_000);
    await assert.rejects(handed, { reason: "timeout", message: /boot its guest/ });
  });
});
