import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { HostConfig } from "../route.ts";
import { isJson } from "../config/shape.ts";
import { defaultRoot, isHostRoot, type Place } from "../place.ts";
import { findProgram, type RuntimeName } from "./program.ts";

/** Which runtime works on this host, and what was found out about those that do not. */
export interface Probed {
  readonly name: RuntimeName;
  readonly program: string;
  readonly detail: string;
}

/**
 * crun where it works, otherwise runc. Found out by running a container with a limit, once in a boot for each state of
 * the programs and of the control groups; then remembered in a file. Refused when neither works.
 */
export function chooseRuntime(config: HostConfig, place: Place): Probed {
  const file = join(isHostRoot() ? defaultRoot() : place.root, "runtime.json");
  const programs = (["crun", "runc"] as const).map((name) => ({ name, program: findProgram(name, config) }));
  const key = keyOf(programs.map(({ program }) => program));
  const known = remembered(file, key);
  if (known !== undefined) return known;
  const refusals: string[] = [];
  for (const { name, program } of programs) {
    if (program === undefined) {
      refusals.push(`${name} is not installed`);
      continue;
    }
    const refusal = tryMending(program, place);
    if (refusal !== undefined) {
      refusals.push(`${name}: ${refusal}`);
      continue;
    }
    const detail = ["works", ...refusals].join("; ");
    // Again, as mending may have changed what the key is made of.
    remember(file, keyOf(programs.map(({ program }) => program)), { name, program, detail });
    return { name, program, detail };
  }
  throw new Fault("unsupported", `no runtime for containers works here: ${refusals.join("; ")}`, {
    hint: "apt-get install crun",
  });
}

function keyOf(programs: readonly (string | undefined)[]): string {
  const facts = [readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()];
  for (const path of [...programs, "/sys/fs/cgroup", "/sys/fs/cgroup/hugetlb"]) {
    const found = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
    facts.push(found === undefined ? "none" : found.isFile() ? `${found.size}-${found.mtimeMs}` : `${found.dev}`);
  }
  return facts.join(" ");
}

function remembered(file: string, key: string): Probed | undefined {
  try {
    const record: unknown = JSON.parse(readFileSync(file, "utf8"));
    if (isJson(record) && record["key"] === key) return record["probed"] as Probed;
  } catch {
    // Not there, or half-written by a machine that lost power: found out again.
  }
  return undefined;
}

function remember(file: string, key: string, probed: Probed): void {
  try {
    mkdirSync(join(file, ".."), { recursive: true, mode: 0o700 });
    const fresh = `${file}.${process.pid}`;
    writeFileSync(fresh, JSON.stringify({ key, probed }), { mode: 0o600 });
    renameSync(fresh, file);
  } catch {
    // Then the next call finds out again.
  }
}

/**
 * crun refuses a host whose version 2 tree has controllers beside version 1 ones. It is usually `hugetlb` that nobody
 * mounted, and mounting it where it belongs is harmless. Returns why the runtime does not work.
 */
function tryMending(program: string, place: Place): string | undefined {
  const refusal = tryOnce(program, place);
  if (refusal === undefined || !isHostRoot()) return refusal;
  const target = "/sys/fs/cgroup/hugetlb";
  const isHybrid = isThere("/sys/fs/cgroup/memory") && isThere("/sys/fs/cgroup/unified");
  if (!isHybrid || isThere(target) || !/^hugetlb\s/m.test(readFileSync("/proc/cgroups", "utf8"))) return refusal;
  try {
    mkdirSync(target, { recursive: true });
  } catch {
    return refusal;
  }
  process
    .getBuiltinModule("node:child_process")
    .spawnSync("mount", ["-t", "cgroup", "-o", "hugetlb", "hugetlb", target], { timeout: 10_000 });
  return tryOnce(program, place);
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function tryOnce(program: string, place: Place): string | undefined {
  const id = `croft-oci-probe-${process.pid}`;
  const directory = join(place.root, "probe", id);
  const bundle = join(directory, "bundle");
  const root = join(bundle, "rootfs");
  const argv = ["--root", join(directory, "state")];
  const { spawnSync } = process.getBuiltinModule("node:child_process");
  try {
    for (const name of ["proc", "dev", "sys"]) mkdirSync(join(root, name), { recursive: true, mode: 0o755 });
    writeFileSync(join(bundle, "config.json"), JSON.stringify(probeConfig(id, hostMounts(root))));
    const { status, stderr, error } = spawnSync(program, [...argv, "run", "--bundle", bundle, id], {
      encoding: "utf8",
      timeout: 10_000,
      killSignal: "SIGKILL",
    });
    if (status === 0) return undefined;
    return error?.message ?? lastLine(stderr);
  } catch (error) {
    return (error as Error).message;
  } finally {
    spawnSync(program, [...argv, "delete", "--force", id], { timeout: 10_000 });
    rmSync(directory, { recursive: true, force: true });
    removeIfEmpty(join(place.root, "probe"));
  }
}

function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Another copy is probing, too.
  }
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

function probeConfig(id: string, mounts: readonly object[]): object {
  const isRoot = isHostRoot();
  return {
    ociVersion: "1.0.2",
    root: { path: "rootfs" },
    process: { args: ["/usr/bin/true"], cwd: "/", env: ["PATH=/usr/bin:/bin"], user: { uid: 0, gid: 0 } },
    mounts: [{ destination: "/proc", type: "proc", source: "proc" }, ...mounts],
    linux: {
      namespaces: [...(isRoot ? [] : ["user"]), "pid", "mount", "ipc", "uts", "network"].map((type) => ({ type })),
      ...(isRoot
        ? { cgroupsPath: `/${id}`, resources: { pids: { limit: 64 } } }
        : {
            uidMappings: [{ containerID: 0, hostID: process.getuid?.(), size: 1 }],
            gidMappings: [{ containerID: 0, hostID: process.getgid?.(), size: 1 }],
          }),
    },
  };
}

/** The host's own programs, read-only: the probe needs one that surely runs here. */
function hostMounts(root: string): object[] {
  const mounts: object[] = [];
  for (const path of ["/usr", "/lib", "/lib64", "/bin", "/nix"]) {
    const facts = lstatSync(path, { throwIfNoEntry: false });
    if (facts === undefined) continue;
    if (facts.isSymbolicLink()) symlinkSync(readlinkSync(path), join(root, path));
    else mounts.push({ destination: path, type: "bind", source: path, options: ["rbind", "ro"] });
  }
  return mounts;
}
