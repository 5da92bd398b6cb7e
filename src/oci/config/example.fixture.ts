import * as fc from "fast-check";

/** A `config.json` with something of everything, all of it right. */
export function fullConfig(): Record<string, unknown> {
  return structuredClone({
    ociVersion: "1.2.0",
    root: { path: "rootfs", readonly: true },
    hostname: "box",
    domainname: "example",
    process: {
      terminal: true,
      consoleSize: { height: 24, width: 80 },
      user: { uid: 1, gid: 2, umask: 0o22, additionalGids: [3, 4] },
      args: ["/bin/sh", "-c", "true"],
      env: ["PATH=/bin", "EMPTY="],
      cwd: "/",
      capabilities: { bounding: ["CAP_KILL"], effective: ["CAP_KILL"], permitted: ["CAP_KILL"], ambient: [] },
      rlimits: [
        { type: "RLIMIT_NOFILE", soft: 1024, hard: 4096 },
        { type: "RLIMIT_CORE", soft: 0, hard: 18446744073709552000 },
      ],
      noNewPrivileges: true,
      apparmorProfile: "",
      selinuxLabel: "",
      oomScoreAdj: 100,
      ioPriority: { class: "IOPRIO_CLASS_BE", priority: 4 },
      scheduler: { policy: "SCHED_BATCH", nice: 5, flags: ["SCHED_FLAG_RESET_ON_FORK"] },
    },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "size=64k"] },
      { destination: "/data", type: "bind", source: "/srv/data", options: ["rbind", "ro"] },
      { destination: "/own", source: "volume", options: ["bind"] },
    ],
    hooks: {
      prestart: [{ path: "/usr/bin/true", args: ["true"], env: ["A=b"], timeout: 5 }],
      createRuntime: [{ path: "/usr/bin/true" }],
      createContainer: [{ path: "/usr/bin/true" }],
      startContainer: [{ path: "/bin/true" }],
      poststart: [{ path: "/usr/bin/true" }],
      poststop: [{ path: "/usr/bin/true" }],
    },
    annotations: { "org.example.key": "value", empty: "" },
    linux: {
      namespaces: [
        { type: "pid" },
        { type: "network", path: "/run/netns/one" },
        { type: "mount" },
        { type: "ipc" },
        { type: "uts" },
        { type: "user" },
        { type: "cgroup" },
        { type: "time" },
      ],
      uidMappings: [{ containerID: 0, hostID: 100_000, size: 65_536 }],
      gidMappings: [{ containerID: 0, hostID: 100_000, size: 65_536 }],
      timeOffsets: { monotonic: { secs: 10, nanosecs: 0 } },
      devices: [
        { type: "c", path: "/dev/fuse", major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 },
        { type: "p", path: "/dev/pipe" },
      ],
      cgroupsPath: "/croft/box",
      resources: {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, type: "c", major: 10, minor: 229, access: "rw" },
        ],
        memory: { limit: 536_870_912, reservation: -1, swap: -1, swappiness: 0, disableOOMKiller: false },
        cpu: { shares: 1024, quota: 1_000_000, period: 500_000, cpus: "0-1", mems: "0", idle: 0 },
        pids: { limit: 100 },
        blockIO: { weight: 10, throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 600 }] },
        hugepageLimits: [{ pageSize: "2MB", limit: 9 }],
        network: { classID: 1_048_577, priorities: [{ name: "eth0", priority: 500 }] },
        rdma: { mlx5_1: { hcaHandles: 3, hcaObjects: 10 } },
        unified: { "memory.high": "1000" },
      },
      rootfsPropagation: "rslave",
      seccomp: {
        defaultAction: "SCMP_ACT_ALLOW",
        architectures: ["SCMP_ARCH_X86_64"],
        flags: ["SECCOMP_FILTER_FLAG_LOG"],
        syscalls: [
          {
            names: ["getcwd"],
            action: "SCMP_ACT_ERRNO",
            errnoRet: 1,
            args: [{ index: 0, value: 1, valueTwo: 2, op: "SCMP_CMP_EQ" }],
          },
        ],
      },
      sysctl: { "net.ipv4.ip_forward": "1" },
      maskedPaths: ["/proc/kcore"],
      readonlyPaths: ["/proc/sys"],
      mountLabel: "",
      personality: { domain: "LINUX" },
      intelRdt: { closID: "one", l3CacheSchema: "L3:0=7f0" },
    },
  });
}

/** Where in a document something stands: names and positions from the top. */
export type Way = readonly (string | number)[];

/** Every place of a document, the top left out. */
export function waysIn(value: unknown, from: Way = []): readonly Way[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, entry]) => {
    const way = [...from, Array.isArray(value) ? Number(name) : name];
    return [way, ...waysIn(entry, way)];
  });
}

export function changedAt(document: object, way: Way, change: unknown): object {
  const copy = structuredClone(document);
  const last = way.at(-1);
  let holder: unknown = copy;
  for (const step of way.slice(0, -1)) holder = (holder as Record<string | number, unknown>)[step];
  if (last !== undefined) (holder as Record<string | number, unknown>)[last] = change;
  return copy;
}

/** Some other value than a careful writer would put there. */
const strange: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(null, true, false, 0, -1, 1.5, 2 ** 53, 1e300, "", "\0", "a\0b", "../../etc", [], {}, [[]]),
  fc.string(),
  fc.jsonValue({ maxDepth: 2 }),
);

/** Documents that are right but for some places where something strange stands. */
export const damagedConfig: fc.Arbitrary<object> = fc
  .array(fc.tuple(fc.constantFrom(...waysIn(fullConfig())), strange), { minLength: 1, maxLength: 3 })
  .map((changes) => {
    let document: object = fullConfig();
    for (const [way, value] of changes) {
      try {
        document = changedAt(document, way, value);
      } catch {
        // An earlier change took away what this one would be in.
      }
    }
    return document;
  });
