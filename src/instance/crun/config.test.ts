import assert from "node:assert/strict";
import { it } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../../base/fault.ts";
import { allCapabilities, boundingCapabilities, ociCapabilities, resolveCapabilities } from "../monitor/capability.ts";
import { depth, ociConfig, tmpfsMount } from "./config.ts";
import { seccompProfile } from "./seccomp.ts";
import { signalNumber } from "../monitor/signal.ts";

const launched = {
  root: { kind: "directory", path: "/root-of-it" },
  attachment: { kind: "netns", path: "/run/netns/x", resolvers: [] },
  hostname: "web-1",
  argv: ["true"],
  env: { PATH: "/only", A: "1" },
  terminal: false,
  readOnlyRoot: true,
  capabilities: { add: [], drop: [] },
  limits: { cpus: 1.5, memoryBytes: 2 ** 26, pids: 10 },
} as const;

const host = {
  arch: "x64",
  capabilities: allCapabilities.filter((name) => name !== "MKNOD"),
  openFiles: { hard: 4096 },
  oomScoreAdj: -500,
  swapAccounting: true,
};

const resolved = {
  user: { uid: 0, gid: 0, groups: [], home: "/root" },
  workdir: "/",
  mounts: [tmpfsMount("/dev/shm", 2 ** 20, undefined)],
  cgroupPath: "/croft/x",
};

it("keeps within what this process may hand on, and lets the launch win over defaults", () => {
  const config = ociConfig(launched, resolved, host);
  assert.equal(config.ociVersion, "1.0.2");
  assert.equal(config.process.noNewPrivileges, true);
  assert.equal(config.process.oomScoreAdj, 0);
  assert.equal(config.process.capabilities["bounding"]?.includes("CAP_MKNOD"), false);
  assert.deepEqual(config.process.rlimits, [{ type: "RLIMIT_NOFILE", soft: 1024, hard: 4096 }]);
  assert.deepEqual(config.process.env, ["PATH=/only", "HOSTNAME=web-1", "HOME=/root", "A=1"]);
  const { resources } = config.linux as { resources?: unknown };
  assert.deepEqual(resources, {
    devices: [{ allow: false, access: "rwm" }],
    cpu: { quota: 150_000, period: 100_000 },
    memory: { limit: 2 ** 26, swap: 2 ** 26 },
    pids: { limit: 10 },
  });
});

it("mounts /dev/shm once, as asked", () => {
  const { mounts } = ociConfig(launched, resolved, host);
  const shm = mounts.filter(({ destination }) => destination === "/dev/shm");
  assert.deepEqual(shm, resolved.mounts);
});

it("shares no namespace with the host", () => {
  const { namespaces } = ociConfig(launched, resolved, host).linux;
  assert.deepEqual(
    namespaces.map(({ type }) => type),
    ["pid", "ipc", "uts", "mount", "cgroup", "network"],
  );
  assert.equal(namespaces.at(-1)?.path, "/run/netns/x");
});

it("adds and drops capabilities by any of their names, and refuses others", () => {
  assert.ok(resolveCapabilities({ add: ["cap_net_admin"], drop: [] }).includes("NET_ADMIN"));
  assert.deepEqual(resolveCapabilities({ add: ["KILL"], drop: ["ALL"] }), ["KILL"]);
  assert.deepEqual(resolveCapabilities({ add: ["ALL"], drop: [] }), [...allCapabilities].sort());
  assert.throws(
    () => resolveCapabilities({ add: ["ROOT"], drop: [] }),
    (error: unknown) => isFault(error, "invalid"),
  );
});

it("gives a user other than root only what was added by name", () => {
  const granted = resolveCapabilities({ add: ["NET_ADMIN"], drop: [] });
  const { ambient, effective } = ociCapabilities(granted, ["NET_ADMIN"], false);
  assert.deepEqual([ambient, effective], [["CAP_NET_ADMIN"], ["CAP_NET_ADMIN"]]);
  assert.deepEqual(ociCapabilities(granted, ["ALL"], false)["effective"], []);
});

it("reads the bounding set bit by bit", () => {
  assert.deepEqual(boundingCapabilities("CapBnd:\t0000000000000021\n"), ["CHOWN", "KILL"]);
  assert.equal(boundingCapabilities("CapBnd:\t000001ffffffffff\n").length, allCapabilities.length);
});

it("refuses namespaces to everybody but who may administer the system", () => {
  const usual = seccompProfile(["CHOWN"], "x64").syscalls;
  const free = (rules: typeof usual, name: string): boolean => {
    return rules.some(
      (rule) => rule.names.includes(name) && rule.action === "SCMP_ACT_ALLOW" && rule.args === undefined,
    );
  };
  for (const name of [
    "unshare",
    "setns",
    "mount",
    "clone",
    "clone3",
    "keyctl",
    "bpf",
    "reboot",
    "kexec_load",
    "io_uring_setup",
    "userfaultfd",
  ]) {
    assert.equal(free(usual, name), false, name);
  }
  for (const name of ["read", "futex", "execve", "openat2", "rseq"]) assert.equal(free(usual, name), true, name);
  const admin = seccompProfile(["SYS_ADMIN"], "x64").syscalls;
  for (const name of ["unshare", "mount", "clone3"]) assert.equal(free(admin, name), true, name);
});

it("knows signals by name, number and place among the real-time ones", () => {
  assert.deepEqual(["SIGTERM", "term", "9", "SIGRTMIN+3", "SIGRTMAX-1"].map(signalNumber), [15, 15, 9, 37, 63]);
  for (const name of ["", "SIG", "0", "65", "SIGRTMIN+31", "SIGFOO"]) {
    assert.throws(
      () => signalNumber(name),
      (error: unknown) => isFault(error, "invalid"),
      name,
    );
  }
});

it("counts the names of a path", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom("a", "b", "c"), { maxLength: 5 }), (names) => {
      assert.equal(depth(`/${names.join("//")}/`), names.length);
    }),
  );
});
