import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import { type InstanceId, instanceId } from "../../base/id.ts";
import type { InstanceEvent } from "../contract.ts";
import { type Layout, layoutOf } from "./layout.ts";
import { Monitored } from "./monitored.ts";

describe("instances of which one cannot be looked at", () => {
  const sound = instanceId("shop", "web", 1, "0123abcd");
  const damaged = instanceId("shop", "web", 2, "0123abcd");
  let directory: string;
  let layout: Layout;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), "monitored."));
    layout = layoutOf(homeBeneath(directory), "microvm");
    for (const id of [sound, damaged]) mkdirSync(layout.of(id).dir, { recursive: true });
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  const seen = (fault: Fault): Monitored => {
    const look = (id: InstanceId): void => {
      if (id === damaged) throw fault;
    };
    return new Monitored(layout, {
      observe(paths) {
        look(paths.dir === layout.of(damaged).dir ? damaged : sound);
        const exit = { code: 3, oomKilled: false, finishedMs: 1 };
        const none = { record: undefined, monitor: undefined, main: undefined, startedMs: undefined };
        return { ...none, awaitsRelease: false, exit, hasRun: true };
      },
      facts(id) {
        look(id);
        return { id, status: "running", intact: true, limits: {} };
      },
    });
  };

  it("lists it as one that is not intact, and the others as they are", () => {
    const listed = seen(new Fault("failed", "read exit: too large")).list();
    assert.deepEqual(
      listed.map(({ id, intact }) => [id, intact]),
      [
        [sound, true],
        [damaged, false],
      ],
    );
  });

  it("says nothing of it when it is this process that lacks something", () => {
    const monitored = seen(new Fault("exhausted", "read exit: too many open files in this process"));
    assert.throws(() => monitored.list(), { reason: "exhausted" });
  });

  it("goes on telling of the others, and that this one is broken", async () => {
    const monitored = seen(new Fault("failed", "read exit: too large"));
    const cancel = new AbortController();
    const events: InstanceEvent[] = [];
    const watching = (async () => {
      for await (const event of monitored.watch(backgroundCall(undefined, cancel.signal))) {
        events.push(event);
        if (events.length === 2) cancel.abort();
      }
    })();
    // Listening begins with the first turn.
    await Promise.resolve();
    monitored.exits.notify(damaged);
    monitored.exits.notify(sound);
    await watching;
    assert.deepEqual(
      events.map(({ kind, id }) => [kind, id]),
      [
        ["broken", damaged],
        ["exited", sound],
      ],
    );
  });
});
