import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../base/fault.ts";
import { errnoOf, hostFault } from "../host/errno.ts";
import { valueOf } from "./command-line.ts";
import { decisionFor, type Ground } from "./ground.ts";

/** Writes a `config.json` to start from, and says on stderr which engine would serve it. */
export function spec(ground: Ground): number {
  const { line } = ground;
  const file = valueOf(line.flags, "file") ?? join(valueOf(line.flags, "bundle") ?? ".", "config.json");
  const config = line.flags.has("rootless") ? rootless(exampleConfig()) : exampleConfig();
  try {
    writeFileSync(file, `${JSON.stringify(config, null, 2)}\n`, { flag: "wx", mode: 0o644 });
  } catch (error) {
    if (errnoOf(error) === "EEXIST") {
      throw new Fault("already-exists", `spec: ${file} exists`, { hint: "remove it first" });
    }
    throw hostFault(error, `write ${file}`);
  }
  const { target, why } = decisionFor(ground, undefined, config);
  ground.log.warn(`engine: ${target}, because of ${why}`);
  return 0;
}

const capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
const masked = ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"];

type Config = ReturnType<typeof exampleConfig>;

function exampleConfig() {
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ["sh"],
      env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
      cwd: "/",
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: true },
    hostname: "croft",
    mounts: [
      mount("/proc", "proc", "proc", []),
      mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
      mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
      mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
      mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
      mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
      mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ],
    linux: {
      resources: { devices: [{ allow: false, access: "rwm" }] },
      namespaces: ["pid", "network", "ipc", "uts", "mount", "cgroup"].map((type) => ({ type })),
      maskedPaths: [...masked, "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
  };
}

/** For a caller that is not root: in a user namespace of its own, and with what needs more left out. */
function rootless(config: Config): object {
  const { resources: _, ...linux } = config.linux;
  return {
    ...config,
    mounts: config.mounts
      .filter(({ type }) => type !== "cgroup")
      .map((one) =>
        one.type === "sysfs"
          ? mount("/sys", "none", "/sys", ["rbind", "nosuid", "noexec", "nodev", "ro"])
          : { ...one, options: one.options.filter((option) => !option.startsWith("gid=")) },
      ),
    linux: {
      ...linux,
      namespaces: [...linux.namespaces.filter(({ type }) => type !== "network"), { type: "user" }],
      uidMappings: [{ containerID: 0, hostID: process.getuid?.() ?? 0, size: 1 }],
      gidMappings: [{ containerID: 0, hostID: process.getgid?.() ?? 0, size: 1 }],
    },
  };
}

function mount(destination: string, type: string, source: string, options: readonly string[]) {
  return { destination, type, source, options };
}
