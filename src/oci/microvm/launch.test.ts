import assert from "node:assert/strict";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import * as fc from "fast-check";
import { Fault } from "../../base/fault.ts";
import type { Bundle } from "../config/bundle.ts";
import { damagedConfig } from "../config/example.fixture.ts";
import { checkedConfig } from "../config/bundle.ts";
import { environmentOf, launchOf, limitsOf } from "./launch.ts";
import { execSettings, userOf } from "./process.ts";

const directory = mkdtempSync(join(tmpdir(), "croft-oci-launch-"));
after(() => rmSync(directory, { recursive: true }));
mkdirSync(join(directory, "data"));
writeFileSync(join(directory, "file"), "x");

function bundleOf(config: object): Bundle {
  const whole = {
    ociVersion: "1.2.0",
    root: { path: "rootfs" },
    process: { cwd: "/", args: ["sh"] },
    linux: { namespaces: ["pid", "network", "mount"].map((type) => ({ type })) },
    ...config,
  };
  return {
    directory,
    configFile: join(directory, "config.json"),
    text: "",
    config: whole,
    root: join(directory, "root"),
  };
}

test("a configuration becomes a launch", () => {
  const { launch, settings } = launchOf(
    "a",
    bundleOf({
      hostname: "box",
      root: { path: "rootfs", readonly: true },
      process: {
        cwd: "/tmp",
        args: ["sh", "-c", "true"],
        env: ["A=b=c", "nothing"],
        user: { uid: 7, gid: 8, umask: 0o27 },
        terminal: true,
        capabilities: { bounding: ["CAP_KILL", "CAP_NET_ADMIN", "CAP_OF_TOMORROW"], ambient: ["CAP_KILL"] },
        rlimits: [
          { type: "RLIMIT_NOFILE", soft: 1024, hard: 4096 },
          { type: "RLIMIT_CORE", soft: 0, hard: 2 ** 64 },
        ],
      },
      mounts: [
        { destination: "/proc", type: "proc", source: "proc" },
        { destination: "/scratch", type: "tmpfs", source: "tmpfs", options: ["size=64k", "mode=700"] },
        { destination: "/data", type: "bind", source: "data", options: ["rbind", "ro"] },
        { destination: "/etc/hosts", type: "bind", source: join(directory, "file"), options: ["bind"] },
      ],
      linux: {
        namespaces: ["pid", "network", "mount"].map((type) => ({ type })),
        resources: { memory: { limit: 2 ** 26 }, pids: { limit: 9 }, cpu: { quota: 150_000, period: 100_000 } },
        sysctl: { "net.ipv4.ip_forward": "1", "kernel.domainname": "it's" },
      },
    }),
  );
  assert.deepEqual(launch.argv, ["sh", "-c", "true"]);
  assert.deepEqual(launch.env, { A: "b=c" });
  assert.equal(launch.user, "7:8");
  assert.equal(launch.hostname, "box");
  assert.ok(launch.terminal && launch.readOnlyRoot);
  assert.deepEqual(launch.limits, { memoryBytes: 2 ** 26, pids: 9, cpus: 1.5 });
  assert.deepEqual(settings.process, {
    bounding: ["KILL", "NET_ADMIN"],
    ambient: ["KILL"],
    limits: [
      { name: "NOFILE", soft: 1024, hard: 4096 },
      { name: "CORE", soft: 0 },
    ],
    gainsPrivileges: true,
    umask: 0o27,
  });
  assert.deepEqual(launch.mounts, [
    { kind: "tmpfs", destination: "/scratch", sizeBytes: 65_536, mode: 0o700 },
    { kind: "bind", source: join(directory, "data"), destination: "/data", readOnly: true },
    { kind: "bind", source: join(directory, "file"), destination: "/etc/hosts", readOnly: false },
  ]);
  assert.deepEqual(settings.kernel, { "net/ipv4/ip_forward": "1", "kernel/domainname": "it's" });
});

for (const [what, config, message] of [
  ["no network of its own", { linux: { namespaces: [{ type: "pid" }] } }, /linux\.namespaces: .* network/],
  ["no processes of its own", { linux: { namespaces: [{ type: "network" }] } }, /linux\.namespaces: .* pid/],
  ["a mount of a kind", { mounts: [{ destination: "/x", type: "overlay", source: "x" }] }, /mounts\[0\]\.type/],
  [
    "a source that is not there",
    { mounts: [{ destination: "/x", type: "bind", source: "/nothing" }] },
    /mounts\[0\]\.source/,
  ],
  [
    "a limit that a guest's shell does not know",
    { process: { cwd: "/", args: ["sh"], rlimits: [{ type: "RLIMIT_RTTIME", soft: 1, hard: 1 }] } },
    /process\.rlimits\[0\]\.type: .* RLIMIT_RTTIME/,
  ],
  [
    "a limit that it would round",
    { process: { cwd: "/", args: ["sh"], rlimits: [{ type: "RLIMIT_STACK", soft: 1000, hard: 1024 }] } },
    /process\.rlimits\[0\]: .* steps of 1024/,
  ],
  [
    "a limit that would hold nowhere",
    {
      linux: {
        namespaces: [{ type: "pid" }, { type: "network" }],
        resources: { blockIO: { throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1 }] } },
      },
    },
    /linux\.resources\.blockIO\.throttleReadBpsDevice: /,
  ],
  [
    "a scheduler",
    { process: { cwd: "/", args: ["sh"], scheduler: { policy: "SCHED_BATCH" } } },
    /process\.scheduler: /,
  ],
  [
    "a setting that is a path",
    { linux: { namespaces: [{ type: "pid" }, { type: "network" }], sysctl: { "../x": "1" } } },
    /linux\.sysctl/,
  ],
] as const) {
  test(`${what} is refused by its field`, () => {
    assert.throws(() => launchOf("a", bundleOf(config)), { name: "Fault", message });
  });
}

test("limits of 0 and less are none", () => {
  assert.deepEqual(limitsOf({ memory: { limit: -1 }, pids: { limit: 0 }, cpu: { quota: -1 } }), {});
});

test("a user comes with further groups, and with its own only once", () => {
  assert.equal(userOf({ uid: 5, gid: 6, additionalGids: [6] }), "5:6");
  assert.equal(userOf({ uid: 5, gid: 6, additionalGids: [7, 6, 9] }), "5:6:7,9");
  assert.equal(userOf(undefined), "0:0");
});

test("what exec does not say is as the container has it", () => {
  const main = {
    bounding: ["KILL"],
    ambient: [],
    limits: [{ name: "NOFILE", soft: 5, hard: 6 }],
    gainsPrivileges: true,
  } as const;
  assert.deepEqual(execSettings({ cwd: "/", args: ["sh"] }, main), main);
  assert.deepEqual(execSettings({ capabilities: {}, noNewPrivileges: true }, main), {
    ...main,
    bounding: [],
    gainsPrivileges: false,
  });
});

test("of two variables of a name the last wins", () => {
  assert.deepEqual(environmentOf(["A=1", "A=2", "=x", "B"]), { A: "2" });
});

test("whatever a configuration says: a launch, or a Fault that names it", () => {
  fc.assert(
    fc.property(damagedConfig, (damaged) => {
      try {
        const config = checkedConfig(JSON.stringify(damaged), "config.json");
        launchOf("a", { ...bundleOf({}), config });
      } catch (error) {
        assert.ok(error instanceof Fault, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
