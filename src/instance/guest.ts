/**
 * What can be said of a guest beyond a launch, by a caller that has a specification of its own to keep: the daemon's
 * launches need none of it. Plain data, so that it can be recorded and nothing in it is ever a shell's text.
 */
export interface GuestSettings {
  /** Instead of what the launch's taps say; the guest's interfaces are in the order of the taps. */
  readonly network: GuestNetwork;
  /** Of the guest's own kernel, by paths beneath `/proc/sys`. */
  readonly kernel: Readonly<Record<string, string>>;
  readonly process: ProcessSettings;
}

export interface GuestNetwork {
  readonly nics: readonly GuestNic[];
  /** In this order: a gateway must be reachable before it is named. */
  readonly routes: readonly GuestRoute[];
}

export interface GuestNic {
  readonly mac: string;
  readonly mtu?: number;
  readonly addresses: readonly { readonly address: string; readonly prefixLength: number }[];
}

export interface GuestRoute {
  readonly family: 4 | 6;
  /** `default`, or an address with or without the length of its prefix. */
  readonly destination: string;
  readonly gateway?: string;
  /** The interface by its place among `nics`; absent: whichever reaches the gateway. */
  readonly nic?: number;
  readonly metric?: number;
}

/** How exactly a process runs: its environment is then what was said and nothing else. */
export interface ProcessSettings {
  /** Names without `CAP_`. As root it has all of these, as another user only the ambient ones. */
  readonly bounding: readonly string[];
  readonly ambient: readonly string[];
  readonly limits: readonly ProcessLimit[];
  /** Whether programs with the set-user-id bit may give it rights. */
  readonly gainsPrivileges: boolean;
  readonly umask?: number;
}

/** One of setrlimit(2), in its own unit; absent: no limit. */
export interface ProcessLimit {
  readonly name: LimitName;
  readonly soft?: number;
  readonly hard?: number;
}

/**
 * What the guest's shell can set, by the letter of its `ulimit`, and the step in which it does. Of those that Linux has,
 * RLIMIT_RTTIME is missing.
 */
export const limitUnits = {
  AS: { letter: "v", bytes: 1024 },
  CORE: { letter: "c", bytes: 512 },
  CPU: { letter: "t", bytes: 1 },
  DATA: { letter: "d", bytes: 1024 },
  FSIZE: { letter: "f", bytes: 512 },
  LOCKS: { letter: "x", bytes: 1 },
  MEMLOCK: { letter: "l", bytes: 1024 },
  MSGQUEUE: { letter: "q", bytes: 1 },
  NICE: { letter: "e", bytes: 1 },
  NOFILE: { letter: "n", bytes: 1 },
  NPROC: { letter: "u", bytes: 1 },
  RSS: { letter: "m", bytes: 1024 },
  RTPRIO: { letter: "r", bytes: 1 },
  SIGPENDING: { letter: "i", bytes: 1 },
  STACK: { letter: "s", bytes: 1024 },
} as const;

export type LimitName = keyof typeof limitUnits;
