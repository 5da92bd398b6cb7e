import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { settled, TestClock } from "../../../base/test-clock.ts";
import { areFilesFrozen, thawFiles, withFrozenFiles } from "./frozen-files.ts";

describe("a guest's file systems", () => {
  let directory: string;
  let place: { readonly agentSocket: string; readonly frozenFile: string };
  let server: Server;
  let clock: TestClock;
  /** What the agent was told, and has not done yet while it is busy. */
  let told: string[];
  let guest: { isFrozen: boolean; isBusy: boolean };
  let sockets: Socket[];

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "frozen."));
    place = { agentSocket: join(directory, "agent"), frozenFile: join(directory, "frozen") };
    clock = new TestClock();
    [told, sockets] = [[], []];
    guest = { isFrozen: false, isBusy: false };
    server = createServer(serve);
    await new Promise<void>((resolve) => server.listen(place.agentSocket, resolve));
  });
  afterEach(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });

  /** As the agent: one thing after the other, and what is frozen is frozen before it is said so. */
  const serve = (socket: Socket): void => {
    sockets.push(socket);
    socket.setEncoding("latin1").on("error", () => {});
    socket.on("data", (text: string) => {
      for (const line of text.replaceAll("\u00ff", "").split("\n").filter(Boolean)) {
        const { execute, arguments: args } = JSON.parse(line) as { execute: string; arguments: { id?: number } };
        if (execute !== "guest-sync-delimited") told.push(execute);
        void answer(socket, execute, args.id);
      }
    });
  };
  const answer = async (socket: Socket, execute: string, id = 1): Promise<void> => {
    while (guest.isBusy) await settled();
    if (execute === "guest-fsfreeze-freeze") guest.isFrozen = true;
    if (execute === "guest-fsfreeze-thaw") guest.isFrozen = false;
    socket.write(`${JSON.stringify({ return: id })}\n`);
  };

  it("are frozen while somebody works, and at no other time", async () => {
    const seen: boolean[] = [];
    await withFrozenFiles(place, backgroundCall(clock), async () => {
      seen.push(guest.isFrozen, areFilesFrozen(place));
    });
    assert.deepEqual([...seen, guest.isFrozen, areFilesFrozen(place)], [true, true, false, false]);
  });

  it("are thawed when the work fails, and when it is called off", async () => {
    const cancel = new AbortController();
    const failing = withFrozenFiles(place, backgroundCall(clock, cancel.signal), async () => {
      cancel.abort();
      throw new Error("no room");
    });
    await assert.rejects(failing, /no room/);
    assert.deepEqual([guest.isFrozen, areFilesFrozen(place)], [false, false]);
  });

  it("are thawed when it is called off while the guest freezes them", async () => {
    const cancel = new AbortController();
    const running = withFrozenFiles(place, backgroundCall(clock, cancel.signal), () =>
      assert.fail("it was called off"),
    );
    running.catch(() => {});
    while (!areFilesFrozen(place)) await settled();
    guest.isBusy = true;
    while (told.length === 0) await settled();
    cancel.abort();
    while (told.length === 1) await settled();
    guest.isBusy = false;
    await assert.rejects(running, { reason: "cancelled" });
    assert.deepEqual([guest.isFrozen, areFilesFrozen(place)], [false, false]);
  });

  it("are known to be frozen when the guest does not say that they are not, and thawed later", async () => {
    const cancel = new AbortController();
    const running = withFrozenFiles(place, backgroundCall(clock, cancel.signal), async () => {
      guest.isBusy = true;
    });
    while (told.length < 2) await settled();
    await clock.advance(10_000);
    await running;
    assert.equal(areFilesFrozen(place), true);
    guest.isBusy = false;
    await thawFiles(place, true, backgroundCall(clock));
    assert.deepEqual([guest.isFrozen, areFilesFrozen(place)], [false, false]);
  });

  it("are nothing to care about when it does not run", async () => {
    writeFileSync(place.frozenFile, "");
    await thawFiles(place, false, backgroundCall(clock));
    assert.equal(areFilesFrozen(place), false);
    assert.deepEqual(told, []);
  });
});
