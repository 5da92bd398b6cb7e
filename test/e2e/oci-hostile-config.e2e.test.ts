import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as fc from "fast-check";
import { damagedConfig, fullConfig } from "../../src/oci/config/example.fixture.ts";
import { Ground } from "./oci-bundle.ts";

/** Of the full example what this host's runtimes can do, in a control group of ours, so that damage is what decides. */
function possible(config: Record<string, unknown>, cgroup: string): Record<string, unknown> {
  const full = fullConfig();
  // Left out where undamaged: what needs a user namespace, a network of somebody's, an RDMA card or a younger runtime.
  for (const name of ["hooks", "domainname"]) {
    if (JSON.stringify(config[name]) === JSON.stringify(full[name])) delete config[name];
  }
  if (JSON.stringify(config["mounts"]) === JSON.stringify(full["mounts"])) {
    config["mounts"] = [{ destination: "/proc", type: "proc", source: "proc" }];
  }
  const linux = config["linux"];
  if (typeof linux === "object" && linux !== null && !Array.isArray(linux)) {
    const own = full["linux"] as Record<string, unknown>;
    const set = linux as Record<string, unknown>;
    for (const name of [
      "uidMappings",
      "gidMappings",
      "timeOffsets",
      "personality",
      "intelRdt",
      "sysctl",
      "resources",
    ]) {
      if (JSON.stringify(set[name]) === JSON.stringify(own[name])) delete set[name];
    }
    // Its parent stays when a container is deleted, so it must be one that goes with the test.
    if (set["cgroupsPath"] === own["cgroupsPath"]) set["cgroupsPath"] = `${cgroup}/a`;
    if (JSON.stringify(set["namespaces"]) === JSON.stringify(own["namespaces"])) {
      set["namespaces"] = ["pid", "network", "mount", "ipc", "uts"].map((type) => ({ type }));
    }
  }
  const process = config["process"];
  if (typeof process === "object" && process !== null && !Array.isArray(process)) {
    const set = process as Record<string, unknown>;
    const own = full["process"] as Record<string, unknown>;
    for (const name of [
      "scheduler",
      "ioPriority",
      "terminal",
      "consoleSize",
      "rlimits",
      "selinuxLabel",
      "apparmorProfile",
    ]) {
      if (JSON.stringify(set[name]) === JSON.stringify(own[name])) delete set[name];
    }
  }
  return config;
}

test("damaged configurations: a clean error and nothing left, or a container that can be deleted", async () => {
  using on = new Ground();
  const bundle = on.bundle("a", ["/bin/true"]);
  const log = join(on.directory, "log.json");
  let made = 0;
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(damagedConfig, async (damaged) => {
      const config = possible(structuredClone(damaged) as Record<string, unknown>, on.cgroup);
      writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
      writeFileSync(log, "");
      const { code, stdout, stderr } = on.oci([
        "--log",
        log,
        "--log-format",
        "json",
        "create",
        "--bundle",
        bundle,
        "a",
      ]);
      assert.doesNotMatch(stdout + stderr, /\n {4}at |TypeError|ReferenceError|Segmentation/, stderr);
      if (code === 0) {
        made += 1;
        on.ok(["delete", "--force", "a"]);
      } else {
        refused += 1;
        assert.equal(code, 1);
        assert.ok(stderr.length > 0 && stderr.length < 4000, stderr);
      }
      assert.deepEqual(
        on.traces().filter((trace) => trace.startsWith("record")),
        [],
        JSON.stringify(config),
      );
    }),
    { numRuns: 120 },
  );
  assert.ok(refused > 20, `only ${refused} were refused`);
  assert.ok(made > 0, "none was accepted: the example does not run here at all");
});
