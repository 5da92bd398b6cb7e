import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { findHierarchies, openCgroups } from "./cgroup.ts";

test("to announce a move moves nobody", async () => {
  const cgroups = openCgroups(findHierarchies());
  const before = readFileSync("/proc/self/cgroup", "utf8");
  for (let times = 0; times < 5; times += 1) cgroups.announceMove();
  await sleep(200);
  assert.equal(readFileSync("/proc/self/cgroup", "utf8"), before);
});
