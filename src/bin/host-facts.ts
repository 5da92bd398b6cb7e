import { statfs } from "node:fs/promises";
import { cpus, hostname, release, totalmem } from "node:os";
import { existsSync } from "node:fs";
import type { Finding, HostFacts, HostInfo, PoolView } from "../api/need.ts";
import type { Call } from "../base/call.ts";
import type { Driver } from "../base/driver.ts";
import { Fault } from "../base/fault.ts";
import type { Home } from "../base/home.ts";
import { formatSize } from "../base/unit.ts";
import { findProgram } from "../host/process.ts";
import { readPssBytes } from "../host/proc.ts";
import type { Drivers } from "./drivers.ts";

/** Below this the next pull or write of a workload may fail. */
const scarceDiskBytes = 2 * 2 ** 30;

/** Programs outside the drivers' own probes → the Debian package, and what does not work without it. */
const programs: Readonly<Record<string, { readonly from: string; readonly use: string }>> = {
  mmdebstrap: { from: "mmdebstrap", use: "building images from Debian packages" },
  "mkfs.ext4": { from: "e2fsprogs", use: "volumes with a size" },
};

/** What `croft host` and `croft doctor` tell of this machine. */
export class LocalHost implements HostFacts {
  readonly #home: Home;
  readonly #drivers: Drivers;
  readonly #startedMs: number;
  readonly #version: string;

  constructor(home: Home, drivers: Drivers, version: string, startedMs: number) {
    this.#home = home;
    this.#drivers = drivers;
    this.#version = version;
    this.#startedMs = startedMs;
  }

  async info(_call: Call): Promise<HostInfo> {
    const { libDir, runDir } = this.#home;
    const disk = await statfs(libDir);
    return {
      name: hostname(),
      version: this.#version,
      pid: process.pid,
      startedMs: this.#startedMs,
      kernel: release(),
      cpus: cpus().length,
      memoryBytes: totalmem(),
      libDir,
      runDir,
      cgroups: cgroupMode(),
      engines: Object.fromEntries(Object.entries(this.#drivers.engines).map(([kind, { name }]) => [kind, name])),
      diskFreeBytes: disk.bavail * disk.bsize,
    };
  }

  async diagnose(call: Call): Promise<readonly Finding[]> {
    const { engines, pool, network } = this.#drivers;
    const probed = await Promise.all([
      ...Object.entries(engines).map(([kind, engine]) => probe(`${kind} engine ${engine.name}`, engine, call)),
      probe(`storage ${pool.name}`, pool, call),
      probe(`network ${network.name}`, network, call),
    ]);
    return [...probed, ...missingPrograms(), await this.#disk(), memory()];
  }

  async pools(call: Call): Promise<readonly PoolView[]> {
    const [facts, disk] = await Promise.all([this.#drivers.pool.list(call), statfs(this.#home.libDir)]);
    return [
      {
        name: this.#drivers.pool.name,
        path: this.#home.libDir,
        sizeBytes: disk.blocks * disk.bsize,
        freeBytes: disk.bavail * disk.bsize,
        roots: facts.roots.length,
        volumes: facts.volumes.length,
      },
    ];
  }

  async #disk(): Promise<Finding> {
    const { bavail, bsize } = await statfs(this.#home.libDir);
    const free = bavail * bsize;
    const detail = `${formatSize(free)} free at ${this.#home.libDir}`;
    if (free >= scarceDiskBytes) return { topic: "disk", status: "ok", detail };
    return { topic: "disk", status: "warning", detail, mend: "free some space: croft image gc" };
  }
}

function memory(): Finding {
  const pss = readPssBytes(process.pid);
  const detail = `croftd uses ${pss === undefined ? "an unknown amount of" : formatSize(pss)} memory`;
  return { topic: "daemon", status: "ok", detail };
}

async function probe(topic: string, driver: Driver, call: Call): Promise<Finding> {
  try {
    const { ok, detail, mend } = await driver.probe(call);
    return { topic, status: ok ? "ok" : "failed", detail, ...(mend === undefined ? {} : { mend }) };
  } catch (thrown) {
    const fault = Fault.from(thrown, `probe ${topic}`);
    return {
      topic,
      status: "failed",
      detail: fault.message,
      ...(fault.hint === undefined ? {} : { mend: fault.hint }),
    };
  }
}

function missingPrograms(): readonly Finding[] {
  return Object.entries(programs).map(([program, { from, use }]) =>
    findProgram(program) === undefined
      ? {
          topic: program,
          status: "warning",
          detail: `not installed: needed for ${use}`,
          mend: `apt-get install ${from}`,
        }
      : { topic: program, status: "ok", detail: use },
  );
}

function cgroupMode(): HostInfo["cgroups"] {
  if (existsSync("/sys/fs/cgroup/cgroup.controllers")) return "v2";
  return existsSync("/sys/fs/cgroup/unified/cgroup.procs") ? "hybrid" : "v1";
}
