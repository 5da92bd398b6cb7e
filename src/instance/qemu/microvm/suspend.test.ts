import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { homeBeneath } from "../../../base/home.ts";
import { instanceId } from "../../../base/id.ts";
import { settled, TestClock } from "../../../base/test-clock.ts";
import { layoutOf } from "../../monitor/layout.ts";
import { connectQmp } from "../qmp.ts";
import { type MachinePaths, machinePaths } from "./place.ts";
import { saveMemory, type SuspendPlace } from "./suspend.ts";

describe("a microVM whose QEMU does not hand over its memory", () => {
  let directory: string;
  let machine: MachinePaths;
  let place: SuspendPlace;
  let server: Server;
  let qemu: Socket | undefined;
  /** The commands that QEMU got. */
  let told: string[];
  const clock = new TestClock();

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "suspend."));
    machine = machinePaths(layoutOf(homeBeneath(directory), "microvm").of(instanceId("shop", "web", 1, "0123abcd")));
    mkdirSync(machine.socketDir, { recursive: true });
    place = { recordFile: join(directory, "record.json"), memoryFile: join(directory, "memory", "file") };
    told = [];
    server = createServer((socket) => {
      qemu = socket;
      socket.on("error", () => {}).write('{"QMP": {}}\n');
      socket.on("data", (bytes) => {
        for (const line of String(bytes).split("\n").filter(Boolean)) {
          const { execute, id } = JSON.parse(line) as { execute: string; id: number };
          told.push(execute);
          socket.write(`${JSON.stringify({ return: {}, id })}\n`);
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(machine.qmpSocket, resolve));
  });
  afterEach(() => {
    qemu?.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });

  /** As far as where it waits for QEMU. */
  const saving = async (signal?: AbortSignal): Promise<{ readonly work: Promise<void> }> => {
    const call = backgroundCall(clock, signal);
    const qmp = await connectQmp(machine.qmpSocket, "suspend it", () => true, call);
    const uid = process.getuid?.() ?? 0;
    const facts = { startedMs: 1, size: { processors: 1, memoryMiB: 128 } };
    const work = saveMemory("suspend it", qmp, machine, uid, place, facts, call);
    work.finally(() => qmp[Symbol.dispose]()).catch(() => {});
    while (!told.includes("migrate") || clock.waiting === 0) await settled();
    return { work };
  };
  const nothingIsLeft = (): void => {
    assert.equal(existsSync(place.recordFile), false);
    assert.equal(existsSync(place.memoryFile), false);
    assert.equal(existsSync(dirname(place.memoryFile)), true);
    assert.equal(existsSync(join(machine.socketDir, "memory")), false);
  };

  it("is not waited for when QEMU is gone", async () => {
    const { work } = await saving();
    qemu?.destroy();
    await assert.rejects(work, { reason: "unavailable" });
    nothingIsLeft();
  });

  it("goes on when QEMU does not come in time", async () => {
    const { work } = await saving();
    await clock.advance(20_000);
    await assert.rejects(work, { reason: "timeout" });
    assert.deepEqual(told.slice(-2), ["migrate_cancel", "cont"]);
    nothingIsLeft();
  });

  it("goes on when whoever asked has given up", async () => {
    const cancel = new AbortController();
    const { work } = await saving(cancel.signal);
    cancel.abort();
    await assert.rejects(work, { reason: "cancelled" });
    assert.deepEqual(told.slice(-2), ["migrate_cancel", "cont"]);
    nothingIsLeft();
  });
});
