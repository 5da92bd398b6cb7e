import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Fault } from "../../base/fault.ts";
import { checkedConfig } from "./bundle.ts";
import { changedAt, damagedConfig, fullConfig, type Way, waysIn } from "./example.fixture.ts";

const name = "/bundle/config.json";
const check = (config: unknown): unknown => checkedConfig(JSON.stringify(config), name);

/** The message with which it is refused. */
function refusal(config: unknown): string {
  try {
    check(config);
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    assert.match(error.message, /^\/bundle\/config\.json: /);
    return error.message.slice(name.length + 2);
  }
  assert.fail(`accepted: ${JSON.stringify(config)}`);
}

test("a configuration with something of everything is accepted", () => {
  assert.deepEqual(check(fullConfig()), fullConfig());
});

test("the smallest configuration is accepted", () => {
  check({ ociVersion: "1.0.0", root: { path: "rootfs" }, process: { cwd: "/", args: ["sh"] } });
});

test("what the specification does not know is left alone", () => {
  const config = fullConfig();
  check({ ...config, future: { anything: [1] }, linux: { ...(config["linux"] as object), future: null } });
});

test("what is absent may be null, as Go programs write it", () => {
  check({ ...fullConfig(), hooks: null, mounts: null, annotations: null });
});

/** Where something of the wrong kind is put, and the field that the message must name. */
const cases: readonly (readonly [Way, unknown, RegExp])[] = [
  [["ociVersion"], undefined, /^ociVersion: is missing/],
  [["ociVersion"], 1, /^ociVersion: expected a text/],
  [["ociVersion"], "one", /^ociVersion: expected a version/],
  [["ociVersion"], "2.0.0", /^ociVersion: 2\.0\.0 is not supported/],
  [["root"], undefined, /^root: is missing/],
  [["root", "path"], undefined, /^root\.path: is missing/],
  [["root", "path"], "", /^root\.path: must not be empty/],
  [["root", "readonly"], "yes", /^root\.readonly: expected true or false/],
  [["process"], undefined, /^process: is missing/],
  [["process"], [], /^process: expected an object/],
  [["process", "cwd"], undefined, /^process\.cwd: is missing/],
  [["process", "cwd"], "relative", /^process\.cwd: expected an absolute path/],
  [["process", "args"], undefined, /^process\.args: is missing/],
  [["process", "args"], null, /^process\.args: is missing/],
  [["process", "args"], [], /^process\.args: must not be empty/],
  [["process", "args"], "sh", /^process\.args: expected a list/],
  [["process", "args", 1], 7, /^process\.args\[1\]: expected a text/],
  [["process", "args", 0], "a\0b", /^process\.args\[0\]: a text must not hold a NUL byte/],
  [["process", "env", 0], {}, /^process\.env\[0\]: expected a text/],
  [["process", "terminal"], 1, /^process\.terminal: expected true or false/],
  [["process", "consoleSize"], { height: 1 }, /^process\.consoleSize\.width: is missing/],
  [["process", "user", "uid"], -1, /^process\.user\.uid: expected a number from 0/],
  [["process", "user", "gid"], "root", /^process\.user\.gid: expected a whole number/],
  [["process", "user", "additionalGids", 0], 1.5, /^process\.user\.additionalGids\[0\]: expected a whole number/],
  [["process", "rlimits", 0, "type"], "NOFILE", /^process\.rlimits\[0\]\.type: expected a limit/],
  [["process", "rlimits", 0, "soft"], 4097, /^process\.rlimits\[0\]\.soft: 4097 is above the hard limit/],
  [["process", "rlimits", 0, "hard"], undefined, /^process\.rlimits\[0\]\.hard: is missing/],
  [["process", "rlimits", 1, "type"], "RLIMIT_NOFILE", /^process\.rlimits\[1\]\.type: RLIMIT_NOFILE is there twice/],
  [["process", "oomScoreAdj"], 1001, /^process\.oomScoreAdj: expected a number from -1000 to 1000/],
  [["process", "scheduler", "policy"], "FIFO", /^process\.scheduler\.policy: expected one of/],
  [["process", "ioPriority", "class"], "BE", /^process\.ioPriority\.class: expected one of/],
  [["process", "capabilities", "bounding"], "ALL", /^process\.capabilities\.bounding: expected a list/],
  [["mounts", 0, "destination"], undefined, /^mounts\[0\]\.destination: is missing/],
  [["mounts", 0, "destination"], "../out", /^mounts\[0\]\.destination: "\.\.\/out" leads out of the root/],
  [["mounts", 1, "options"], "ro", /^mounts\[1\]\.options: expected a list/],
  [["mounts", 1, "options", 0], 5, /^mounts\[1\]\.options\[0\]: expected a text/],
  [["mounts", 2, "source"], undefined, /^mounts\[2\]\.source: a bind mount needs what it binds/],
  [["mounts", 3, "source"], "../secret", /^mounts\[3\]\.source: "\.\.\/secret" leads out of the bundle/],
  [["mounts", 0, "type"], undefined, /^mounts\[0\]\.type: is missing/],
  [["hooks", "prestart", 0, "path"], undefined, /^hooks\.prestart\[0\]\.path: is missing/],
  [["hooks", "poststop", 0, "path"], "true", /^hooks\.poststop\[0\]\.path: expected an absolute path/],
  [["hooks", "prestart", 0, "timeout"], 0, /^hooks\.prestart\[0\]\.timeout: expected a number from 1/],
  [["annotations", "org.example.key"], 5, /^annotations\.org\.example\.key: expected a text/],
  [["annotations", ""], "x", /^annotations: a name must not be empty/],
  [["hostname"], 5, /^hostname: expected a text/],
  [["linux", "namespaces", 0, "type"], "pids", /^linux\.namespaces\[0\]\.type: expected one of/],
  [["linux", "namespaces", 0, "type"], "ipc", /^linux\.namespaces\[3\]\.type: ipc is there twice/],
  [["linux", "namespaces", 1, "path"], "netns", /^linux\.namespaces\[1\]\.path: expected an absolute path/],
  [["linux", "namespaces", 4, "type"], "nothing", /^linux\.namespaces\[4\]\.type/],
  [["linux", "uidMappings", 0, "size"], 0, /^linux\.uidMappings\[0\]\.size: must not be 0/],
  [["linux", "uidMappings", 0, "hostID"], undefined, /^linux\.uidMappings\[0\]\.hostID: is missing/],
  [["linux", "devices", 0, "type"], "x", /^linux\.devices\[0\]\.type: expected one of/],
  [["linux", "devices", 0, "major"], undefined, /^linux\.devices\[0\]\.major: is missing/],
  [["linux", "devices", 0, "path"], "dev/fuse", /^linux\.devices\[0\]\.path: expected an absolute path/],
  [["linux", "cgroupsPath"], 5, /^linux\.cgroupsPath: expected a text/],
  [["linux", "resources", "memory", "limit"], "64m", /^linux\.resources\.memory\.limit: expected a whole number/],
  [["linux", "resources", "cpu", "shares"], -1, /^linux\.resources\.cpu\.shares: expected a number from 0/],
  [["linux", "resources", "cpu", "cpus"], 0, /^linux\.resources\.cpu\.cpus: expected a text/],
  [["linux", "resources", "pids", "limit"], "100", /^linux\.resources\.pids\.limit: expected a whole number/],
  [["linux", "resources", "devices", 0, "allow"], "no", /^linux\.resources\.devices\[0\]\.allow: expected true or/],
  [["linux", "resources", "devices", 1, "access"], "rx", /^linux\.resources\.devices\[1\]\.access: expected letters/],
  [["linux", "resources", "hugepageLimits", 0, "pageSize"], "64kb", /hugepageLimits\[0\]\.pageSize: expected a size/],
  [["linux", "resources", "hugepageLimits", 0, "limit"], undefined, /hugepageLimits\[0\]\.limit: is missing/],
  [["linux", "resources", "rdma", "mlx5_1"], 5, /^linux\.resources\.rdma\.mlx5_1: expected an object/],
  [["linux", "resources", "blockIO", "throttleReadBpsDevice", 0, "rate"], -1, /throttleReadBpsDevice\[0\]\.rate/],
  [["linux", "resources", "unified", "memory.high"], 5, /^linux\.resources\.unified\.memory\.high: expected a text/],
  [["linux", "rootfsPropagation"], "public", /^linux\.rootfsPropagation: expected one of/],
  [["linux", "seccomp", "defaultAction"], undefined, /^linux\.seccomp\.defaultAction: is missing/],
  [["linux", "seccomp", "defaultAction"], "ALLOW", /^linux\.seccomp\.defaultAction: expected one of/],
  [["linux", "seccomp", "syscalls", 0, "names"], [], /^linux\.seccomp\.syscalls\[0\]\.names: must not be empty/],
  [["linux", "seccomp", "syscalls", 0, "action"], "SCMP_ACT_NOTIFY", /^linux\.seccomp\.listenerPath: is missing/],
  [["linux", "seccomp", "syscalls", 0, "args", 0, "op"], "==", /^linux\.seccomp\.syscalls\[0\]\.args\[0\]\.op/],
  [["linux", "cgroupsPath"], "/croft/../../box", /^linux\.cgroupsPath: .* must not hold "\.\."/],
  [["linux", "cgroupsPath"], "system.slice:croft:../box", /^linux\.cgroupsPath: .* must not hold/],
  [["linux", "maskedPaths", 0], "proc", /^linux\.maskedPaths\[0\]: expected an absolute path/],
  [["linux", "sysctl", "net.ipv4.ip_forward"], 1, /^linux\.sysctl\.net\.ipv4\.ip_forward: expected a text/],
  [["linux", "personality", "domain"], "BSD", /^linux\.personality\.domain: expected one of/],
  [["linux", "timeOffsets", "monotonic", "nanosecs"], -1, /^linux\.timeOffsets\.monotonic\.nanosecs/],
  [["linux", "intelRdt", "memBwSchema"], "a\nb", /^linux\.intelRdt\.memBwSchema: expected one line/],
];

for (const [way, value, message] of cases) {
  test(`${way.join(".")} = ${JSON.stringify(value) ?? "absent"} is refused by its name`, () => {
    assert.match(refusal(changedAt(fullConfig(), way, value)), message);
  });
}

test("a hostname without a namespace for it is refused", () => {
  const namespaces = [{ type: "pid" }, { type: "mount" }];
  const message = refusal({ ...fullConfig(), linux: { namespaces } });
  assert.match(message, /^hostname: needs a namespace of type uts/);
  assert.match(message, /domainname: needs/);
});

test("several findings are said at once, and not without end", () => {
  const rlimits = Array.from({ length: 50 }, () => ({ type: 5 }));
  const message = refusal({ ...fullConfig(), process: { cwd: "/", args: ["sh"], rlimits } });
  assert.equal(message.split("; ").length, 8);
});

test("every single field of the wrong kind is refused by its own name", () => {
  for (const way of waysIn(fullConfig())) {
    const message = refusal(changedAt(fullConfig(), way, [[[]]]));
    const field = way.map((step, index) => (typeof step === "number" ? `[${step}]` : index === 0 ? step : `.${step}`));
    assert.ok(message.includes(field.join("")), `${field.join("")}: ${message}`);
  }
});

test("whatever stands in it: accepted, or a Fault that names the file", () => {
  fc.assert(
    fc.property(damagedConfig, (config) => {
      try {
        check(config);
      } catch (error) {
        assert.ok(error instanceof Fault, String(error));
        assert.match(error.message, /^\/bundle\/config\.json: \S/);
        assert.doesNotMatch(error.message, /undefined|\[object|\n {4}at /);
        assert.ok(error.message.length < 4000, error.message);
      }
    }),
    { numRuns: 2000 },
  );
});

test("whatever bytes: a Fault", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      assert.throws(() => checkedConfig(text, name), Fault);
    }),
    { numRuns: 1000 },
  );
});

test("a hundred thousand brackets do not overflow anything", () => {
  assert.throws(() => checkedConfig("[".repeat(100_000), name), Fault);
  assert.throws(() => checkedConfig('{"a":'.repeat(100_000), name), Fault);
});

test("fields that every object has are not taken for the file's", () => {
  const config = fullConfig();
  delete config["root"];
  Object.setPrototypeOf(config, { root: { path: "rootfs" } });
  assert.match(refusal(config), /^root: is missing/);
});
