/**
 * The default system call filter: the policy that docker, podman and containerd give to containers. Everything is
 * refused with EPERM but what is listed; some calls only with certain arguments, some only for a capability that was
 * granted. A call the filter has never heard of answers ENOSYS, so that programs fall back to an older one.
 */

export interface SeccompProfile {
  readonly defaultAction: "SCMP_ACT_ERRNO";
  readonly defaultErrnoRet: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly SyscallRule[];
}

interface SyscallRule {
  readonly names: readonly string[];
  readonly action: "SCMP_ACT_ALLOW" | "SCMP_ACT_ERRNO";
  readonly errnoRet?: number;
  readonly args?: readonly ArgumentRule[];
}

interface ArgumentRule {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op: "SCMP_CMP_EQ" | "SCMP_CMP_NE" | "SCMP_CMP_MASKED_EQ";
}

const EPERM = 1;
const ENOSYS = 38;

/** Calls that any program may make. */
const always = words(`
  accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
  clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
  clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
  epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
  exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
  fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
  fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
  futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
  getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
  getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
  get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
  inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64
  ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
  lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr
  lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
  mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
  mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
  name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
  pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
  process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
  recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
  restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
  rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
  sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
  sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
  semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid
  setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
  setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area
  set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
  signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat
  sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
  timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
  timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat
  utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev process_vm_readv process_vm_writev ptrace
`);

/** Calls that a capability unlocks; the kernel still checks the capability itself. */
const byCapability: Readonly<Record<string, readonly string[]>> = {
  DAC_READ_SEARCH: words("open_by_handle_at"),
  SYS_ADMIN: words(`
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
    lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
    sethostname setns syslog umount umount2 unshare
  `),
  SYS_BOOT: words("reboot"),
  SYS_CHROOT: words("chroot"),
  SYS_MODULE: words("delete_module finit_module init_module"),
  SYS_PACCT: words("acct"),
  SYS_PTRACE: words("kcmp pidfd_getfd process_madvise"),
  SYS_RAWIO: words("iopl ioperm"),
  SYS_TIME: words("settimeofday stime clock_settime clock_settime64"),
  SYS_TTY_CONFIG: words("vhangup"),
  SYS_NICE: words("get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
  SYSLOG: words("syslog"),
  BPF: words("bpf"),
  PERFMON: words("perf_event_open"),
};

/** Execution domains that change nothing dangerous: Linux, with 32-bit uname, and the query for the current one. */
const personalities: readonly number[] = [0x0, 0x0008, 0x20000, 0x20008, 0xffffffff];

/** All flags of clone that make a namespace. */
const namespaceFlags = 0x7e020000;

/** The filter for a process with these capabilities (without `CAP_`), on this processor (as `process.arch` names it). */
export function seccompProfile(capabilities: readonly string[], arch: string): SeccompProfile {
  const privileged = capabilities.includes("SYS_ADMIN");
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: EPERM,
    architectures: architectures(arch),
    syscalls: [
      allow([...always, ...architectureCalls(arch), ...capabilities.flatMap((name) => byCapability[name] ?? [])]),
      ...personalities.map((value) => allow(["personality"], [{ index: 0, value, op: "SCMP_CMP_EQ" }])),
      // AF_VSOCK (40) reaches the hypervisor, past every network namespace. On 32 bits `socketcall` hides the argument.
      allow(["socket"], [{ index: 0, value: 40, op: "SCMP_CMP_NE" }]),
      ...(privileged ? [] : withoutNamespaces(arch)),
    ],
  };
}

/**
 * Processes and threads, but no new namespaces. clone3 has its flags in memory, where a filter cannot look: it answers
 * ENOSYS, after which the C libraries use clone.
 */
function withoutNamespaces(arch: string): SyscallRule[] {
  const flagsIndex = arch === "s390x" ? 1 : 0;
  const rule: ArgumentRule = { index: flagsIndex, value: namespaceFlags, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" };
  return [allow(["clone"], [rule]), { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS }];
}

function architectures(arch: string): string[] {
  if (arch === "x64") return ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
  if (arch === "arm64") return ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
  if (arch === "s390x") return ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"];
  if (arch === "ppc64") return ["SCMP_ARCH_PPC64LE"];
  return arch === "riscv64" ? ["SCMP_ARCH_RISCV64"] : [];
}

function architectureCalls(arch: string): readonly string[] {
  if (arch === "x64") return words("arch_prctl modify_ldt");
  if (arch === "arm64")
    return words("arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls");
  if (arch === "s390x") return words("s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr");
  if (arch === "ppc64") return words("sync_file_range2 swapcontext");
  return arch === "riscv64" ? words("riscv_flush_icache") : [];
}

function allow(names: readonly string[], args?: readonly ArgumentRule[]): SyscallRule {
  return { names, action: "SCMP_ACT_ALLOW", ...(args === undefined ? {} : { args }) };
}

function words(text: string): readonly string[] {
  return text.split(/\s+/).filter(Boolean);
}
