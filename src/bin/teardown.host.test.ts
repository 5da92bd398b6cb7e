import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall, systemClock } from "../base/call.ts";
import { homeBeneath } from "../base/home.ts";
import { listMounts } from "../host/mount.ts";
import { openDrivers } from "./drivers.ts";
import { tearDown } from "./teardown.ts";

test("teardown leaves no cgroup, that of the monitors neither", async () => {
  const directory = mkdtempSync(join(tmpdir(), "teardown."));
  const home = homeBeneath(directory);
  for (const path of [home.libDir, home.runDir]) mkdirSync(path);
  const call = backgroundCall(systemClock);
  const drivers = await openDrivers(home, systemClock, call);
  const groups = listMounts("/sys/fs/cgroup")
    .filter(({ type, target }) => type.startsWith("cgroup") && !target.endsWith("cpuset"))
    .map(({ target }) => join(target, home.prefix));
  assert.notEqual(groups.length, 0);
  // The second is what a run that was killed may leave: no engine has an instance of that name.
  for (const group of groups)
    for (const name of ["monitor", "left.behind"]) mkdirSync(join(group, name), { recursive: true });
  await tearDown(home, drivers, call);
  await drivers.close();
  assert.deepEqual(groups.filter(existsSync), []);
  rmSync(directory, { recursive: true });
});
