import type { Digest } from "../base/id.ts";

/**
 * What a stack file means once it is parsed and checked: every default filled in, every size in bytes, every duration in
 * milliseconds. Plain JSON, so that it can be stored, hashed and sent. Front ends (TOML, JSON, later Compose) lower to it.
 */
export interface StackSpec {
  readonly stack: string;
  readonly networks: Readonly<Record<string, NetworkSection>>;
  readonly volumes: Readonly<Record<string, VolumeSection>>;
  readonly secrets: Readonly<Record<string, SecretSection>>;
  readonly images: Readonly<Record<string, ImageSection>>;
  readonly instances: Readonly<Record<string, InstanceSection>>;
}

/** The network that instances join when they name none. Always part of the spec when an instance uses it. */
export const defaultNetwork = "default";

export interface NetworkSection {
  /** Absent: one is chosen for it and kept. */
  readonly subnet?: string;
  readonly internal: boolean;
}

export interface VolumeSection {
  readonly sizeBytes?: number;
  readonly protect: boolean;
}

export type SecretSection =
  | { readonly source: "generate"; readonly length: number }
  /** A file beside the stack file, or a variable of the environment of whoever runs `croft up`: the client sends the value. */
  | { readonly source: "file"; readonly path: string }
  | { readonly source: "env"; readonly variable: string };

export interface ImageSection {
  /** `scratch`, a Debian suite (`debian:bookworm`), another image of this stack, or a registry reference. */
  readonly from: string;
  readonly packages: readonly string[];
  /** Destination in the image → path beside the stack file: a file or a directory. */
  readonly files: Readonly<Record<string, string>>;
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly user?: string;
  readonly workdir?: string;
}

/** What an instance runs as: each kind has an engine of its own. */
export type InstanceKind = "container" | "microvm" | "vm";

export interface InstanceSection extends Partial<GuestMembers>, Partial<MachineMembers> {
  readonly kind: InstanceKind;
  /**
   * As written: the name of an `[image.x]` of this stack, else a registry reference. Of a `vm`: the disk image or ISO it
   * begins with, or `blank`.
   */
  readonly image: string;
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly env: Readonly<Record<string, EnvValue>>;
  readonly user?: string;
  readonly workdir?: string;
  /** Absent: the instance's own name, `web-1`. */
  readonly hostname?: string;
  readonly terminal: boolean;
  readonly stdin: boolean;
  readonly mounts: readonly MountSection[];
  readonly networks: readonly string[];
  readonly publish: readonly PublishSection[];
  readonly cpus?: number;
  readonly memoryBytes?: number;
  readonly pids?: number;
  readonly restart: "always" | "on-failure" | "never";
  readonly health?: HealthSection;
  readonly needs: readonly string[];
  readonly replicas: number;
  readonly stopSignal?: string;
  readonly stopGraceMs: number;
  readonly readOnly: boolean;
  readonly capabilities: { readonly add: readonly string[]; readonly drop: readonly string[] };
  readonly labels: Readonly<Record<string, string>>;
  readonly protect: boolean;
  readonly log: { readonly maxBytes: number };
  readonly update: { readonly order: "start-first" | "stop-first"; readonly healthyWithinMs: number };
}

/** What only a `microvm` has: a program of an image with a kernel of its own. */
export interface GuestMembers {
  /** A kernel of the host, by absolute path; absent: the distribution's. */
  readonly kernelPath: string;
  /** Absent: it may be started from the memory of an earlier one. */
  readonly warmStart: boolean;
}

/** What a `vm` has, always, and nothing else has. It runs what is on its disks, so nothing of an image's program is set. */
export interface MachineMembers {
  /** In boot order; names are unique. */
  readonly disks: readonly DiskSection[];
  readonly firmware: "bios" | "uefi" | "uefi-secure";
  readonly tpm: boolean;
  readonly cloudInit: CloudInitSection;
  readonly sshKeys: readonly SshKeySection[];
  /** Absent: the best this host has. */
  readonly cpuModel?: string;
  readonly topology?: { readonly sockets: number; readonly cores: number; readonly threads: number };
  readonly hugepages: boolean;
  readonly balloon: boolean;
  readonly passthrough: { readonly pci: readonly string[]; readonly usb: readonly string[] };
}

export interface DiskSection {
  /** `root` and `iso` for those of the field `disk`. */
  readonly name: string;
  /** What is on it at first. An `iso` lies in a CD-ROM drive and is never written to. */
  readonly from:
    | { readonly kind: "image"; readonly image: string }
    | { readonly kind: "iso"; readonly image: string }
    | { readonly kind: "blank" };
  /** Absent: as large as the image. */
  readonly sizeBytes?: number;
}

/** Where cloud-init's three files come from; what is absent is made from the instance's name, address and keys. */
export type CloudInitSection =
  | { readonly kind: "none" }
  | {
      readonly kind: "files";
      readonly userData?: InjectedText;
      readonly metaData?: InjectedText;
      readonly networkConfig?: InjectedText;
    };

/** A file beside the stack file, or a secret. */
export type InjectedText = { readonly path: string } | { readonly secret: string };

/** A public key as OpenSSH writes it, or a file beside the stack file with such lines. */
export type SshKeySection = { readonly key: string } | { readonly path: string };

export type EnvValue = { readonly value: string } | { readonly secret: string };

export type MountSection =
  | { readonly kind: "volume"; readonly volume: string; readonly destination: string; readonly readOnly: boolean }
  /** A directory or file of the host, by absolute path. */
  | { readonly kind: "bind"; readonly source: string; readonly destination: string; readonly readOnly: boolean }
  | { readonly kind: "tmpfs"; readonly destination: string; readonly sizeBytes?: number }
  /** A file or directory beside the stack file, injected. */
  | { readonly kind: "file"; readonly path: string; readonly destination: string; readonly mode?: number }
  | { readonly kind: "secret"; readonly secret: string; readonly destination: string; readonly mode: number };

export interface PublishSection {
  /** `0.0.0.0`: all addresses. */
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly port: number;
  readonly protocol: "tcp" | "udp";
}

export interface HealthSection {
  readonly check:
    | { readonly kind: "http"; readonly port: number; readonly path: string }
    | { readonly kind: "tcp"; readonly port: number }
    | { readonly kind: "exec"; readonly argv: readonly string[] };
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Consecutive failures until unhealthy. */
  readonly retries: number;
  /** Failures this soon after the start do not count. */
  readonly startPeriodMs: number;
}

/**
 * A generation: the immutable, content-addressed desired state of a stack. Names that can move (tags, local files,
 * secrets) are pinned to what they were when it was made, so that going back really goes back.
 */
export interface Generation {
  readonly spec: StackSpec;
  /** Image as written in an instance → the image's manifest digest. */
  readonly images: Readonly<Record<string, Digest>>;
  /** Disk image or ISO as written in a disk → the digest of its content. Absent: no instance has disks. */
  readonly diskImages?: Readonly<Record<string, Digest>>;
  /** Secret name → version. */
  readonly secrets: Readonly<Record<string, string>>;
  /** Path beside the stack file → digest of its content as the client sent it. */
  readonly files: Readonly<Record<string, Digest>>;
}
