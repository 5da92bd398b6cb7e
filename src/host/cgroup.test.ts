import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../base/fault.ts";
import { type CgroupLimits, type Cgroups, cpuQuotaUs, openCgroups, parseBlkio, parseIoStat } from "./cgroup.ts";

const group = "/croft/shop.web.1.0123abcd";

/** A directory that looks like a control group tree: the kernel makes the files, so here they are made beforehand. */
function withTree(
  trees: Readonly<Record<string, Readonly<Record<string, string>>>>,
  use: (cgroups: Cgroups, fileOf: (tree: string, name: string) => string) => void,
): void {
  const root = mkdtempSync(join(tmpdir(), "cgroup."));
  try {
    for (const [tree, files] of Object.entries(trees)) {
      mkdirSync(join(root, tree, group), { recursive: true });
      for (const [name, text] of Object.entries(files)) writeFileSync(join(root, tree, group, name), text);
    }
    const hierarchies = Object.fromEntries(Object.keys(trees).map((tree) => [tree, join(root, tree)]));
    use(openCgroups(hierarchies), (tree, name) => readFileSync(join(root, tree, group, name), "utf8"));
  } finally {
    rmSync(root, { recursive: true });
  }
}

const version2 = {
  unified: {
    "cgroup.procs": "12\n34\n",
    "cgroup.freeze": "0\n",
    "cgroup.events": "populated 1\nfrozen 0\n",
    "cpu.max": "max 100000\n",
    "cpu.stat": "usage_usec 2500\nuser_usec 1\n",
    "memory.max": "1048576\n",
    "memory.swap.max": "0\n",
    "memory.current": "5000\n",
    "memory.stat": "anon 1\ninactive_file 1000\n",
    "memory.events": "low 0\noom 3\noom_kill 2\n",
    "pids.max": "max\n",
    "pids.current": "2\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
  },
};

const version1 = {
  memory: {
    "cgroup.procs": "12\n34\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "memory.usage_in_bytes": "5000\n",
    "memory.stat": "inactive_file 1\ntotal_inactive_file 1000\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
  },
  pids: { "cgroup.procs": "34\n56\n", "pids.max": "max\n", "pids.current": "3\n" },
  cpu: { "cpu.cfs_quota_us": "-1\n" },
  cpuacct: { "cpuacct.usage": "2500000\n" },
  blkio: { "blkio.throttle.io_service_bytes_recursive": "8:0 Read 11\n8:0 Write 22\n8:0 Sync 33\nTotal 33\n" },
  freezer: { "freezer.state": "THAWED\n" },
};

it("reads the counters of version 2", () =>
  withTree(version2, (cgroups) => {
    assert.equal(cgroups.version, 2);
    assert.deepEqual(cgroups.counters(group), {
      cpuNs: 2_500_000n,
      memoryBytes: 4000,
      memoryLimitBytes: 1048576,
      pids: 2,
      readBytes: 11,
      writtenBytes: 22,
      oomKills: 2,
    });
    assert.deepEqual(cgroups.pids(group), [12, 34]);
  }));

it("reads the counters of version 1, whose largest limit means none", () =>
  withTree(version1, (cgroups) => {
    assert.equal(cgroups.version, 1);
    assert.deepEqual(cgroups.counters(group), {
      cpuNs: 2_500_000n,
      memoryBytes: 4000,
      pids: 3,
      readBytes: 11,
      writtenBytes: 22,
      oomKills: 2,
    });
    assert.deepEqual(cgroups.pids(group), [12, 34, 56]);
  }));

const limits = fc.record(
  {
    cpus: fc.double({ min: 0.01, max: 64, noNaN: true }),
    memoryBytes: fc.integer({ min: 4096, max: 2 ** 40 }),
    pids: fc.integer({ min: 1, max: 1e6 }),
  },
  { requiredKeys: [] },
);

it("writes limits so that they are read back, and their absence as none, on both versions", () => {
  fc.assert(
    fc.property(limits, (limits) => {
      // fast-check gives absent keys, which is what exact optional properties mean.
      const asked = limits as CgroupLimits;
      withTree(version2, (cgroups, fileOf) => {
        cgroups.limit(group, asked);
        const quota = asked.cpus === undefined ? "max" : String(cpuQuotaUs(asked.cpus));
        // The kernel ends what is written at its end; a file keeps the rest of longer text.
        assert.ok(fileOf("unified", "cpu.max").startsWith(`${quota} 100000`));
        assert.ok(fileOf("unified", "memory.max").startsWith(String(asked.memoryBytes ?? "max")));
        assert.ok(fileOf("unified", "memory.swap.max").startsWith(asked.memoryBytes === undefined ? "max" : "0"));
        assert.ok(fileOf("unified", "pids.max").startsWith(String(asked.pids ?? "max")));
      });
      withTree(version1, (cgroups, fileOf) => {
        cgroups.limit(group, asked);
        const quota = asked.cpus === undefined ? "-1" : String(cpuQuotaUs(asked.cpus));
        assert.ok(fileOf("cpu", "cpu.cfs_quota_us").startsWith(quota));
        for (const name of ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]) {
          assert.ok(fileOf("memory", name).startsWith(String(asked.memoryBytes ?? -1)));
        }
        assert.ok(fileOf("pids", "pids.max").startsWith(String(asked.pids ?? "max")));
      });
    }),
    { numRuns: 40 },
  );
});

it("freezes and thaws on both versions, and tells freezing from frozen", () => {
  withTree(version2, (cgroups) => {
    cgroups.freeze(group);
    assert.equal(cgroups.freezeState(group), "freezing");
    cgroups.thaw(group);
    assert.equal(cgroups.freezeState(group), "thawed");
  });
  withTree(version1, (cgroups) => {
    cgroups.freeze(group);
    assert.equal(cgroups.freezeState(group), "frozen");
    cgroups.thaw(group);
    assert.equal(cgroups.freezeState(group), "thawed");
  });
});

it("takes a group that is not there as empty, and refuses to limit it", () =>
  withTree(version2, (cgroups) => {
    const other = "/croft/none";
    assert.equal(cgroups.exists(other), false);
    assert.deepEqual(cgroups.pids(other), []);
    assert.equal(cgroups.counters(other).oomKills, 0);
    assert.equal(cgroups.freezeState(other), "thawed");
    cgroups.remove(other);
    assert.throws(
      () => cgroups.limit(other, {}),
      (error: unknown) => isFault(error, "not-found"),
    );
  }));

it("refuses a host without control groups, saying what to do", () => {
  assert.throws(
    () => openCgroups({}),
    (error: unknown) => isFault(error, "unsupported") && error.hint !== undefined,
  );
});

it("sums bytes over devices and passes over what it does not know", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(1e9), fc.nat(1e9)), { maxLength: 6 }), (devices) => {
      const readBytes = devices.reduce((sum, [read]) => sum + read, 0);
      const writtenBytes = devices.reduce((sum, [, written]) => sum + written, 0);
      const lines1 = devices.map(
        ([read, written], at) => `8:${at} Read ${read}\n8:${at} Write ${written}\n8:${at} Async 7\n`,
      );
      const lines2 = devices.map(([read, written], at) => `8:${at} rbytes=${read} wbytes=${written} dbytes=7\n`);
      assert.deepEqual(parseBlkio(lines1.join("")), { readBytes, writtenBytes });
      assert.deepEqual(parseIoStat(lines2.join("")), { readBytes, writtenBytes });
    }),
  );
});
