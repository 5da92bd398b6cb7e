import { lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import type { Home } from "../../base/home.ts";
import { readBootId } from "../../host/proc.ts";
import { mount } from "../../host/kernel.ts";
import { run } from "../../host/process.ts";
import { findHierarchies, openCgroups } from "../../host/cgroup.ts";
import { bindMount, ociConfig, type OciMount } from "./config.ts";
import { layoutOf } from "../monitor/layout.ts";
import { hostFacts } from "./prepare.ts";
import { readRecord, writeRecord } from "../monitor/record.ts";
import { type Runtime, type RuntimeName, runtimes } from "../monitor/runtime.ts";

/** What was found in this boot, by runtime. */
interface Remembered {
  readonly boot: string;
  readonly probes: Readonly<Partial<Record<RuntimeName, Probe>>>;
}

/**
 * The runtime to use on this host: crun, and runc where crun does not work. Where neither does it is crun, whose probe
 * says so to whoever wants a container: other kinds of instances may work all the same.
 */
export async function chooseRuntime(home: Home, call: Call): Promise<RuntimeName> {
  for (const name of ["crun", "runc"] as const) {
    if ((await probeRuntime(runtimes[name], home, call)).ok) return name;
  }
  return "crun";
}

/** Really runs a container with limits and all that is usual, once in a boot. A failure is tried again each time. */
export async function probeRuntime(runtime: Runtime, home: Home, call: Call): Promise<Probe> {
  const layout = layoutOf(home, "container");
  const boot = readBootId();
  const before = readRecord(layout.probeFile) as Remembered | undefined;
  const known = before?.boot === boot ? before.probes : {};
  const found = known[runtime.name];
  if (found?.ok === true) return found;
  const probe = await tryAndMend(runtime, home, call);
  mkdirSync(layout.runDir, { recursive: true, mode: 0o700 });
  writeRecord(layout.probeFile, { boot, probes: { ...known, [runtime.name]: probe } } satisfies Remembered);
  return probe;
}

async function tryAndMend(runtime: Runtime, home: Home, call: Call): Promise<Probe> {
  try {
    await run(["conmon", "--version"], {}, call);
    const { stdout } = await run([runtime.program, "--version"], {}, call);
    const version = stdout.split("\n")[0]?.replace(" version", "") ?? runtime.name;
    const mended = await runMending(runtime, home, call);
    return { ok: true, detail: mended === undefined ? version : `${version}; ${mended}` };
  } catch (error) {
    const fault = Fault.from(error, runtime.name);
    if (call.signal.aborted) throw fault;
    return { ok: false, detail: fault.message, mend: fault.hint ?? `see what ${runtime.name} says` };
  }
}

/**
 * crun refuses a host whose version 2 tree has controllers beside version 1 ones. It is usually `hugetlb` that nobody
 * mounted, and mounting it where it belongs is harmless. Returns what was done to the host.
 */
async function runMending(runtime: Runtime, home: Home, call: Call): Promise<string | undefined> {
  try {
    await runOnce(runtime, home, call);
    return undefined;
  } catch (error) {
    const hierarchies = findHierarchies();
    const isHybrid = hierarchies["memory"] !== undefined && hierarchies["unified"] !== undefined;
    const isUnmounted =
      hierarchies["hugetlb"] === undefined && /^hugetlb\s/m.test(readFileSync("/proc/cgroups", "utf8"));
    if (!isHybrid || !isUnmounted) throw error;
    const target = "/sys/fs/cgroup/hugetlb";
    mkdirSync(target, { recursive: true });
    mount("hugetlb", target, "cgroup", 0, "hugetlb");
    await runOnce(runtime, home, call);
    return `mounted the hugetlb control groups on ${target}, which ${runtime.name} asks for`;
  }
}

async function runOnce(runtime: Runtime, home: Home, call: Call): Promise<void> {
  const layout = layoutOf(home, "container");
  const directory = join(layout.runDir, `probe-${runtime.name}`);
  const root = join(directory, "root");
  const id = `probe-${runtime.name}`;
  const cgroup = `/${home.prefix}/${id}`;
  const hierarchies = findHierarchies();
  const argv = [runtime.program, ...runtime.globalArgs(layout)];
  rmSync(directory, { recursive: true, force: true });
  try {
    for (const path of [layout.stateDir, ...["proc", "sys", "dev"].map((name) => join(root, name))]) {
      mkdirSync(path, { recursive: true, mode: 0o755 });
    }
    const config = ociConfig(
      {
        root: { kind: "directory", path: root },
        attachment: { kind: "netns", path: "/proc/self/ns/net", resolvers: [] },
        hostname: "probe",
        argv: ["/usr/bin/true"],
        env: {},
        terminal: false,
        readOnlyRoot: true,
        capabilities: { add: [], drop: [] },
        limits: { cpus: 1, memoryBytes: 64 * 2 ** 20, pids: 16 },
      },
      {
        user: { uid: 0, gid: 0, groups: [], home: "/" },
        workdir: "/",
        mounts: hostPrograms(root),
        cgroupPath: cgroup,
      },
      hostFacts(hierarchies),
    );
    // A network of its own, which nobody has to make: the probe tells about the runtime, not about networks.
    const namespaces = config.linux.namespaces.map(({ type }) => ({ type }));
    writeRecord(join(directory, "config.json"), { ...config, linux: { ...config.linux, namespaces } });
    const options = { attempted: `run a container with ${runtime.name}`, timeoutMs: 10_000 };
    await run([...argv, "run", "--bundle", directory, id], options, call);
  } finally {
    await run([...argv, "delete", "--force", id], { okCodes: [0, 1], timeoutMs: 10_000 }, call).catch(() => {});
    openCgroups(hierarchies).remove(cgroup);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The host's own programs, read-only: the probe needs one that surely runs here. */
function hostPrograms(root: string): OciMount[] {
  const mounts: OciMount[] = [];
  for (const path of ["/usr", "/lib", "/lib64"]) {
    const facts = lstatSync(path, { throwIfNoEntry: false });
    if (facts === undefined) continue;
    if (facts.isSymbolicLink()) {
      symlinkSync(readlinkSync(path), join(root, path));
      continue;
    }
    mkdirSync(join(root, path));
    mounts.push(bindMount(path, path, true));
  }
  return mounts;
}
