import { existsSync } from "node:fs";
import { join } from "node:path";
import { valueOf } from "./command-line.ts";
import { readBundle } from "./config/bundle.ts";
import { decisionFor, type Ground, print, specVersion } from "./ground.ts";

/**
 * What can be asked for, in the form that the specification's `features.md` gives it. Which engine the bundle in
 * `--bundle`, or in the working directory, would get stands among the annotations.
 */
export function features(ground: Ground): number {
  const said = valueOf(ground.line.flags, "bundle");
  const hasBundle = said !== undefined || existsSync(join(".", "config.json"));
  const { target, why } = decisionFor(ground, undefined, hasBundle ? readBundle(said ?? ".").config : {});
  const document = {
    ociVersionMin: "1.0.0",
    ociVersionMax: specVersion,
    hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    mountOptions,
    linux: {
      namespaces: ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
      capabilities: capabilities.map((name) => `CAP_${name}`),
      cgroup: { v1: true, v2: true, systemd: true, systemdUser: true, rdma: true },
      seccomp: {
        enabled: true,
        actions: ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP"].map(
          (name) => `SCMP_ACT_${name}`,
        ),
        operators: ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map((name) => `SCMP_CMP_${name}`),
        archs: ["X86", "X86_64", "X32", "ARM", "AARCH64"].map((name) => `SCMP_ARCH_${name}`),
        knownFlags: ["TSYNC", "LOG", "SPEC_ALLOW"].map((name) => `SECCOMP_FILTER_FLAG_${name}`),
      },
      apparmor: { enabled: true },
      selinux: { enabled: true },
    },
    annotations: { "croft.engine": target, "croft.engine.why": why },
    potentiallyUnsafeConfigAnnotations: ["croft.engine"],
  };
  return print(`${JSON.stringify(document, null, 2)}\n`);
}

const mountOptions = [
  ..."acl async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand".split(" "),
  ..."noacl noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid".split(" "),
  ..."private rbind relatime remount ro rprivate rro rrw rshared rslave runbindable rw".split(" "),
  ..."shared silent slave strictatime suid sync tmpcopyup unbindable".split(" "),
];

const capabilities = (
  "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE " +
  "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN " +
  "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE " +
  "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split(" ");
