import { own, recordsIn } from "../config/shape.ts";
import type { RuntimeName } from "./program.ts";

/**
 * Fields of `config.json` that a runtime has not always known. It ignores what it does not know, and the container
 * would run without what was asked for: so it is refused. The versions are from the runtimes' own release notes.
 */
interface Newer {
  readonly field: string;
  readonly isUsed: (config: unknown) => boolean;
  readonly since: Readonly<Record<RuntimeName, readonly [number, number, number]>>;
}

const inProcess = (config: unknown, name: string): boolean => own(own(config, "process"), name) != null;
const linux = (config: unknown, name: string): boolean => own(own(config, "linux"), name) != null;

const newer: readonly Newer[] = [
  {
    field: "process.scheduler",
    isUsed: (config) => inProcess(config, "scheduler"),
    since: { crun: [1, 8, 5], runc: [1, 2, 0] },
  },
  {
    field: "process.ioPriority",
    isUsed: (config) => inProcess(config, "ioPriority"),
    since: { crun: [1, 8, 6], runc: [1, 2, 0] },
  },
  {
    field: "process.execCPUAffinity",
    isUsed: (config) => inProcess(config, "execCPUAffinity"),
    since: { crun: [1, 20, 0], runc: [1, 3, 0] },
  },
  {
    field: "domainname",
    isUsed: (config) => own(config, "domainname") != null && own(config, "domainname") !== "",
    since: { crun: [1, 7, 0], runc: [1, 2, 0] },
  },
  {
    field: "linux.namespaces (time)",
    isUsed: (config) => recordsIn(own(config, "linux"), "namespaces").some(({ type }) => type === "time"),
    since: { crun: [1, 8, 4], runc: [1, 2, 0] },
  },
  {
    field: "linux.intelRdt",
    isUsed: (config) => linux(config, "intelRdt"),
    since: { crun: [1, 10, 0], runc: [1, 0, 0] },
  },
  {
    field: "linux.personality",
    isUsed: (config) => linux(config, "personality"),
    since: { crun: [1, 0, 0], runc: [1, 2, 0] },
  },
  {
    field: "linux.netDevices",
    isUsed: (config) => linux(config, "netDevices"),
    since: { crun: [1, 22, 0], runc: [1, 4, 0] },
  },
  {
    field: "linux.memoryPolicy",
    isUsed: (config) => linux(config, "memoryPolicy"),
    since: { crun: [1, 25, 0], runc: [1, 4, 0] },
  },
  {
    field: "linux.resources.cpu.burst",
    isUsed: (config) => own(own(own(own(config, "linux"), "resources"), "cpu"), "burst") != null,
    since: { crun: [1, 11, 0], runc: [1, 2, 0] },
  },
  {
    field: "mounts.uidMappings",
    isUsed: (config) => recordsIn(config, "mounts").some((mount) => recordsIn(mount, "uidMappings").length > 0),
    since: { crun: [1, 9, 0], runc: [1, 2, 0] },
  },
];

/** Fields that this runtime would ignore, one sentence each. It is asked for its version only when one is used. */
export function unsupportedFields(name: RuntimeName, program: string, config: unknown): readonly string[] {
  const used = newer.filter(({ isUsed }) => isUsed(config));
  if (used.length === 0) return [];
  const version = versionOf(program);
  return used
    .filter(({ since }) => isOlder(version, since[name]))
    .map(({ field, since }) => `${field}: ${name} ${version.join(".")} cannot do it; ${since[name].join(".")} can`);
}

/** What this runtime was built with: crun says it, runc has what Debian and its own releases build it with. */
export function builtInto(name: RuntimeName, program: string): Readonly<Record<BuildPart, boolean>> {
  const has = name === "crun" ? new Set(versionText(program).toLowerCase().match(/\+\w+/g)) : undefined;
  const part = (word: BuildPart): boolean => has?.has(`+${word}`) ?? true;
  return {
    systemd: part("systemd"),
    selinux: part("selinux"),
    apparmor: part("apparmor"),
    seccomp: part("seccomp"),
  };
}

type BuildPart = "systemd" | "selinux" | "apparmor" | "seccomp";

function versionText(program: string): string {
  const { spawnSync } = process.getBuiltinModule("node:child_process");
  return spawnSync(program, ["--version"], { encoding: "utf8", timeout: 10_000 }).stdout ?? "";
}

function versionOf(program: string): readonly [number, number, number] {
  const found = /version\s+v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(versionText(program));
  return [Number(found?.[1] ?? 0), Number(found?.[2] ?? 0), Number(found?.[3] ?? 0)];
}

function isOlder(version: readonly number[], than: readonly number[]): boolean {
  for (const [index, part] of than.entries()) {
    const own = version[index] ?? 0;
    if (own !== part) return own < part;
  }
  return false;
}
