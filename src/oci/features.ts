import { existsSync } from "node:fs";
import { join } from "node:path";
import { allCapabilities } from "../instance/monitor/capability.ts";
import { valueOf } from "./command-line.ts";
import { readBundle } from "./config/bundle.ts";
import { decisionFor, type Ground, print, specVersion } from "./ground.ts";
import { whyNoCriu } from "./namespace/criu.ts";
import { chooseRuntime } from "./namespace/probe.ts";
import { requireProgram, type RuntimeName } from "./namespace/program.ts";
import { builtInto, unsupportedFields } from "./namespace/support.ts";
import type { Target } from "./route.ts";

/**
 * What can be asked for, in the form that the specification's `features.md` gives it. It depends on the engine: of crun and
 * runc it is what the installed one can do. Which engine the bundle in `--bundle`, or in the working directory, would get
 * stands among the annotations.
 */
export function features(ground: Ground): number {
  const said = valueOf(ground.line.flags, "bundle");
  const hasBundle = said !== undefined || existsSync(join(".", "config.json"));
  const { target, why } = decisionFor(ground, undefined, hasBundle ? readBundle(said ?? ".").config : {});
  const document = {
    ociVersionMin: "1.0.0",
    ociVersionMax: specVersion,
    ...(target === "microvm" ? ofMicrovm : ofContainer(ground, target)),
    potentiallyUnsafeConfigAnnotations: ["croft.engine"],
  };
  const { annotations } = document;
  const whole = { ...document, annotations: { "croft.engine": target, "croft.engine.why": why, ...annotations } };
  return print(`${JSON.stringify(whole, null, 2)}\n`);
}

/** Protections of the host's kernel do not reach into a guest. */
const ofMicrovm = {
  hooks: ["prestart", "createRuntime", "poststart", "poststop"],
  mountOptions: ["bind", "rbind", "ro", "rro", "rw"],
  linux: {
    namespaces: ["cgroup", "ipc", "mount", "network", "pid", "uts"],
    capabilities: namesOfCapabilities(),
    cgroup: { v1: true, v2: true, systemd: false, systemdUser: false, rdma: false },
    seccomp: { enabled: false },
    apparmor: { enabled: false },
    selinux: { enabled: false },
    intelRdt: { enabled: false },
    mountExtensions: { idmap: { enabled: false } },
  },
  annotations: { "croft.checkpoint": "no: a microVM cannot be checkpointed" },
};

function ofContainer({ host, place }: Ground, target: Target): Omit<typeof ofMicrovm, "linux"> & { linux: object } {
  const name: RuntimeName = target === "crun" || target === "runc" ? target : chooseRuntime(host, place).name;
  const program = requireProgram(name, host);
  const has = builtInto(name, program);
  const can = (config: object): boolean => unsupportedFields(name, program, config).length === 0;
  const noCriu = whyNoCriu(name, program);
  return {
    hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    mountOptions,
    linux: {
      namespaces: [
        "cgroup",
        "ipc",
        "mount",
        "network",
        "pid",
        ...(can({ linux: { namespaces: [{ type: "time" }] } }) ? ["time"] : []),
        "user",
        "uts",
      ],
      capabilities: namesOfCapabilities(),
      cgroup: { v1: true, v2: true, systemd: has.systemd, systemdUser: has.systemd, rdma: true },
      seccomp: has.seccomp ? seccomp : { enabled: false },
      apparmor: { enabled: has.apparmor },
      selinux: { enabled: has.selinux },
      intelRdt: { enabled: can({ linux: { intelRdt: {} } }) },
      mountExtensions: { idmap: { enabled: can({ mounts: [{ uidMappings: [{}] }] }) } },
    },
    annotations: { "croft.checkpoint": noCriu === undefined ? `yes: by ${name}` : `no: ${noCriu}` },
  };
}

const seccomp = {
  enabled: true,
  actions: ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP"].map(
    (name) => `SCMP_ACT_${name}`,
  ),
  operators: ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map((name) => `SCMP_CMP_${name}`),
  archs: ["X86", "X86_64", "X32", "ARM", "AARCH64"].map((name) => `SCMP_ARCH_${name}`),
  knownFlags: ["TSYNC", "LOG", "SPEC_ALLOW"].map((name) => `SECCOMP_FILTER_FLAG_${name}`),
};

const mountOptions = [
  ..."acl async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand".split(" "),
  ..."noacl noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid".split(" "),
  ..."private rbind relatime remount ro rprivate rro rrw rshared rslave runbindable rw".split(" "),
  ..."shared silent slave strictatime suid sync tmpcopyup unbindable".split(" "),
];

function namesOfCapabilities(): readonly string[] {
  return allCapabilities.map((name) => `CAP_${name}`);
}
