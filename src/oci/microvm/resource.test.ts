import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCommandLine } from "../command-line.ts";
import { hostResources, resourceFindings, withHostResources } from "./resource.ts";
import { resourcesSaid } from "./resource-option.ts";
import { limitsAfter } from "./update.ts";

/** What callers send when nobody asked for anything, all at once. */
const usual = {
  devices: [{ allow: false, access: "rwm" }],
  memory: { limit: 2 ** 29, swap: 2 ** 30, reservation: 0, kernel: 0, disableOOMKiller: false, swappiness: 2 ** 64 },
  cpu: { shares: 1024, quota: 0, period: 0, cpus: "", mems: "", realtimeRuntime: 0, realtimePeriod: 0 },
  pids: { limit: 2048 },
  blockIO: { weight: 0, weightDevice: [], throttleReadBpsDevice: null },
  hugepageLimits: [{ pageSize: "2MB", limit: 0 }],
  network: null,
  unified: { "memory.oom.group": "1", "memory.swap.max": "0" },
};

test("what callers send by themselves is never refused, and reaches the control group where it can hold", () => {
  assert.deepEqual(resourceFindings(usual, ""), []);
  assert.deepEqual(hostResources(usual), {
    cpu: { shares: 1024 },
    hugepageLimits: [{ pageSize: "2MB", limit: 0 }],
    unified: { "memory.oom.group": "1", "memory.swap.max": "0" },
  });
  assert.deepEqual(hostResources(undefined), {});
  assert.deepEqual(resourceFindings(undefined, ""), []);
});

test("what somebody asked for is kept by the control group around the machine", () => {
  const cpu = { shares: 512, period: 50_000, cpus: "0-1", mems: "0", idle: 1 };
  assert.deepEqual(hostResources({ cpu: { ...cpu, quota: -1 }, memory: { reservation: 2 ** 28, swappiness: 0 } }), {
    cpu,
    memory: { reservation: 2 ** 28, swappiness: 0 },
  });
});

test("the machine's own limits stay beside those of the caller", () => {
  const made = { devices: [], memory: { limit: 9 }, cpu: { quota: 150_000, period: 100_000 }, pids: { limit: 7 } };
  const host = { cpu: { shares: 2, quota: 75_000, period: 50_000 }, memory: { reservation: 5 } };
  assert.deepEqual(withHostResources(made, host), {
    ...made,
    memory: { limit: 9, reservation: 5 },
    cpu: { shares: 2, quota: 75_000, period: 50_000 },
  });
});

for (const [resources, field] of [
  [{ blockIO: { weight: 10 } }, "blockIO.weight"],
  [{ blockIO: { throttleWriteIOPSDevice: [{ major: 8, minor: 0, rate: 9 }] } }, "blockIO.throttleWriteIOPSDevice"],
  [{ memory: { disableOOMKiller: true } }, "memory.disableOOMKiller"],
  [{ network: { classID: 1 } }, "network.classID"],
  [{ network: { priorities: [{ name: "eth0", priority: 1 }] } }, "network.priorities"],
  [{ unified: { "memory.max": "1000" } }, "unified.memory.max"],
  [{ unified: { "io.max": "8:0 rbps=1" } }, "unified.io.max"],
] as const) {
  test(`${field} would hold nowhere and is refused by its name`, () => {
    const [finding = "", ...others] = resourceFindings(resources, "linux.resources.");
    assert.ok(finding.startsWith(`linux.resources.${field}: `), finding);
    assert.deepEqual(others, []);
  });
}

const said = (text: string): unknown => resourcesSaid(parseCommandLine(["update", ...text.split("|"), "a"]).flags);

for (const [text, resources] of [
  ["--memory|512M", { memory: { limit: 2 ** 29 } }],
  ["--memory=1.5gb", { memory: { limit: 1.5 * 2 ** 30 } }],
  ["--memory=64 KiB|--memory-swap=-1", { memory: { limit: 65_536, swap: -1 } }],
  ["--memory|1000|--memory-reservation|1b", { memory: { limit: 1000, reservation: 1 } }],
  ["--cpu-quota=-1|--cpu-share=7|--cpuset-cpus=0-3", { cpu: { quota: -1, shares: 7, cpus: "0-3" } }],
  ["--pids-limit=-1|--memory=", { pids: { limit: -1 } }],
] as const) {
  test(`update ${text.replaceAll("|", " ")} is understood`, () => assert.deepEqual(said(text), resources));
}

for (const [text, message] of [
  ["--memory=much", /^--memory much: expected a number/],
  ["--memory=5X", /^--memory 5X: expected a number/],
  ["--memory=-5M", /^--memory -5M: /],
  ["--pids-limit=1.5", /^--pids-limit 1\.5: /],
  ["--cpu-quota=NaN", /^--cpu-quota NaN: /],
  ["--cpu-period=-1", /^update: cpu\.period: expected a number from 0/],
] as const) {
  test(`update ${text} is refused`, () => assert.throws(() => said(text), { reason: "invalid", message }));
}

test("a limit that is 0 or not said stays, one that is negative is none", () => {
  const before = { memoryBytes: 100, pids: 5, cpus: 2 };
  assert.deepEqual(limitsAfter(before, { memory: { limit: 0 }, cpu: { shares: 3 } }), before);
  assert.deepEqual(limitsAfter(before, { memory: { limit: 7 }, cpu: { quota: 50_000, period: 100_000 } }), {
    memoryBytes: 7,
    pids: 5,
    cpus: 0.5,
  });
  assert.deepEqual(limitsAfter(before, { memory: { limit: -1 }, pids: { limit: -1 }, cpu: { quota: -1 } }), {});
  assert.deepEqual(limitsAfter(before, { memory: { limit: 9_223_372_036_854_771_712 } }), { pids: 5, cpus: 2 });
});
