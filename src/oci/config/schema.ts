import {
  absolutePath,
  all,
  filledText,
  flag,
  int64,
  list,
  map,
  matching,
  oneOf,
  record,
  type Shape,
  text,
  uint16,
  uint32,
  uint64,
  whole,
} from "./shape.ts";

/** The shape of `config.json` as the runtime specification 1.2 has it, for Linux. */

const rlimit = record(
  { type: matching(/^RLIMIT_[A-Z]+$/, "a limit such as RLIMIT_NOFILE"), soft: uint64, hard: uint64 },
  {},
);

const user = record({}, { uid: uint32, gid: uint32, umask: uint32, additionalGids: list(uint32), username: text });

const capabilities = record(
  {},
  {
    bounding: list(text),
    effective: list(text),
    inheritable: list(text),
    permitted: list(text),
    ambient: list(text),
  },
);

const scheduler = record(
  {
    policy: oneOf("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"),
  },
  {
    nice: whole(-20, 19),
    priority: whole(0, 99),
    flags: list(
      oneOf(
        "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_RECLAIM",
        "SCHED_FLAG_DL_OVERRUN",
        "SCHED_FLAG_KEEP_POLICY",
        "SCHED_FLAG_KEEP_PARAMS",
        "SCHED_FLAG_UTIL_CLAMP_MIN",
        "SCHED_FLAG_UTIL_CLAMP_MAX",
      ),
    ),
    runtime: uint64,
    deadline: uint64,
    period: uint64,
  },
);

/** Also the shape of what `exec --process` reads. */
export const processShape = record(
  { cwd: absolutePath, args: list(text, 1) },
  {
    terminal: flag,
    consoleSize: record({ height: uint16, width: uint16 }, {}),
    user,
    commandLine: text,
    env: list(text),
    capabilities,
    rlimits: list(rlimit),
    noNewPrivileges: flag,
    apparmorProfile: text,
    oomScoreAdj: whole(-1000, 1000),
    scheduler,
    selinuxLabel: text,
    ioPriority: record(
      { class: oneOf("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE") },
      { priority: whole(0, 7) },
    ),
    execCPUAffinity: record({}, { initial: text, final: text }),
  },
);

const idMapping = record({ containerID: uint32, hostID: uint32, size: uint32 }, {});

const mount = record(
  { destination: filledText },
  { type: text, source: text, options: list(text), uidMappings: list(idMapping), gidMappings: list(idMapping) },
);

const hook = record(
  { path: all(filledText, absolutePath) },
  { args: list(text), env: list(text), timeout: whole(1, 2 ** 31 - 1) },
);

const hooks = record(
  {},
  {
    prestart: list(hook),
    createRuntime: list(hook),
    createContainer: list(hook),
    startContainer: list(hook),
    poststart: list(hook),
    poststop: list(hook),
  },
);

const namespaces = list(
  record({ type: oneOf("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time") }, { path: absolutePath }),
);

const deviceNumber = int64;
const device = record(
  { type: oneOf("a", "b", "c", "u", "p"), path: all(filledText, absolutePath) },
  { major: deviceNumber, minor: deviceNumber, fileMode: whole(0, 0o7777_7777), uid: uint32, gid: uint32 },
);

const deviceRule = record(
  { allow: flag },
  {
    type: oneOf("a", "b", "c", ""),
    major: deviceNumber,
    minor: deviceNumber,
    access: matching(/^[rwm]*$/, "letters of rwm"),
  },
);

const throttle = list(record({ major: deviceNumber, minor: deviceNumber, rate: uint64 }, {}));

const blockIO = record(
  {},
  {
    weight: uint16,
    leafWeight: uint16,
    weightDevice: list(record({ major: deviceNumber, minor: deviceNumber }, { weight: uint16, leafWeight: uint16 })),
    throttleReadBpsDevice: throttle,
    throttleWriteBpsDevice: throttle,
    throttleReadIOPSDevice: throttle,
    throttleWriteIOPSDevice: throttle,
  },
);

/** Also the shape of what `update --resources` reads. */
export const resourcesShape = record(
  {},
  {
    devices: list(deviceRule),
    memory: record(
      {},
      {
        limit: int64,
        reservation: int64,
        swap: int64,
        kernel: int64,
        kernelTCP: int64,
        swappiness: whole(0, 2 ** 64),
        disableOOMKiller: flag,
        useHierarchy: flag,
        checkBeforeUpdate: flag,
      },
    ),
    cpu: record(
      {},
      {
        shares: uint64,
        quota: int64,
        burst: uint64,
        period: uint64,
        realtimeRuntime: int64,
        realtimePeriod: uint64,
        cpus: text,
        mems: text,
        idle: int64,
      },
    ),
    blockIO,
    hugepageLimits: list(
      record({ pageSize: matching(/^[1-9][0-9]*[KMG]B$/, "a size such as 2MB"), limit: uint64 }, {}),
    ),
    network: record({}, { classID: uint32, priorities: list(record({ name: text, priority: uint32 }, {})) }),
    pids: record({}, { limit: int64 }),
    rdma: map(record({}, { hcaHandles: uint32, hcaObjects: uint32 })),
    unified: map(text),
  },
);

const actions = oneOf(
  "SCMP_ACT_KILL",
  "SCMP_ACT_KILL_PROCESS",
  "SCMP_ACT_KILL_THREAD",
  "SCMP_ACT_TRAP",
  "SCMP_ACT_ERRNO",
  "SCMP_ACT_TRACE",
  "SCMP_ACT_ALLOW",
  "SCMP_ACT_LOG",
  "SCMP_ACT_NOTIFY",
);

const seccomp = record(
  { defaultAction: actions },
  {
    defaultErrnoRet: uint32,
    architectures: list(matching(/^SCMP_ARCH_[A-Z0-9_]+$/, "an architecture such as SCMP_ARCH_X86_64")),
    flags: list(
      oneOf(
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
      ),
    ),
    listenerPath: text,
    listenerMetadata: text,
    syscalls: list(
      record(
        { names: list(text, 1), action: actions },
        {
          errnoRet: uint32,
          args: list(
            record(
              {
                index: uint32,
                value: uint64,
                op: oneOf(
                  "SCMP_CMP_NE",
                  "SCMP_CMP_LT",
                  "SCMP_CMP_LE",
                  "SCMP_CMP_EQ",
                  "SCMP_CMP_GE",
                  "SCMP_CMP_GT",
                  "SCMP_CMP_MASKED_EQ",
                ),
              },
              { valueTwo: uint64 },
            ),
          ),
        },
      ),
    ),
  },
);

const linux = record(
  {},
  {
    namespaces,
    uidMappings: list(idMapping),
    gidMappings: list(idMapping),
    timeOffsets: map(record({}, { secs: int64, nanosecs: uint32 })),
    devices: list(device),
    netDevices: map(record({}, { name: text })),
    cgroupsPath: text,
    resources: resourcesShape,
    intelRdt: record(
      {},
      {
        closID: text,
        l3CacheSchema: text,
        memBwSchema: matching(/^[^\n]*$/, "one line"),
        enableCMT: flag,
        enableMBM: flag,
      },
    ),
    memoryPolicy: record({ mode: text }, { nodes: text, flags: list(text) }),
    sysctl: map(text),
    seccomp,
    rootfsPropagation: oneOf(
      "",
      "private",
      "rprivate",
      "shared",
      "rshared",
      "slave",
      "rslave",
      "unbindable",
      "runbindable",
    ),
    maskedPaths: list(absolutePath),
    readonlyPaths: list(absolutePath),
    mountLabel: text,
    personality: record({ domain: oneOf("LINUX", "LINUX32") }, { flags: list(text) }),
  },
);

export const configShape: Shape = record(
  {
    ociVersion: matching(/^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]*)?$/, "a version such as 1.2.0"),
    root: record({ path: filledText }, { readonly: flag }),
    process: processShape,
  },
  {
    hostname: text,
    domainname: text,
    mounts: list(mount),
    hooks,
    annotations: map(text),
    linux,
  },
);
