import { Fault } from "../../base/fault.ts";

/** What the main process may do as root: the set that docker gives, which most images are written for. */
const usual: readonly string[] = [
  "CHOWN",
  "DAC_OVERRIDE",
  "FOWNER",
  "FSETID",
  "KILL",
  "MKNOD",
  "NET_BIND_SERVICE",
  "NET_RAW",
  "SETFCAP",
  "SETGID",
  "SETPCAP",
  "SETUID",
  "SYS_CHROOT",
  "AUDIT_WRITE",
];

/** All capabilities of Linux, in the order of their numbers. */
export const allCapabilities: readonly string[] = [
  "CHOWN",
  "DAC_OVERRIDE",
  "DAC_READ_SEARCH",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE",
  "NET_BROADCAST",
  "NET_ADMIN",
  "NET_RAW",
  "IPC_LOCK",
  "IPC_OWNER",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE",
  "SYS_PACCT",
  "SYS_ADMIN",
  "SYS_BOOT",
  "SYS_NICE",
  "SYS_RESOURCE",
  "SYS_TIME",
  "SYS_TTY_CONFIG",
  "MKNOD",
  "LEASE",
  "AUDIT_WRITE",
  "AUDIT_CONTROL",
  "SETFCAP",
  "MAC_OVERRIDE",
  "MAC_ADMIN",
  "SYSLOG",
  "WAKE_ALARM",
  "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON",
  "BPF",
  "CHECKPOINT_RESTORE",
];

/**
 * The capabilities of an instance, sorted, without `CAP_`: the usual set, less `drop`, with `add`. `ALL` stands for
 * every one. An unknown name is `invalid`.
 */
export function resolveCapabilities(wish: {
  readonly add: readonly string[];
  readonly drop: readonly string[];
}): string[] {
  const granted = new Set(usual);
  for (const name of expand(wish.drop)) granted.delete(name);
  for (const name of expand(wish.add)) granted.add(name);
  return [...granted].sort();
}

function expand(names: readonly string[]): readonly string[] {
  return names.flatMap((name) => {
    const short = name.toUpperCase().replace(/^CAP_/, "");
    if (short === "ALL") return allCapabilities;
    if (allCapabilities.includes(short)) return [short];
    throw new Fault("invalid", `"${name}" is not a capability of Linux`, {
      hint: "names are as in capabilities(7), such as NET_ADMIN",
    });
  });
}

/** The bits that this process itself has and could hand on, from `CapBnd` of `/proc/self/status`. */
export function boundingCapabilities(status: string): string[] {
  const bits = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  return allCapabilities.filter((_, number) => ((bits >> BigInt(number)) & 1n) === 1n);
}

/** The `capabilities` of an OCI process. A user other than root has only what was asked for by name, as podman does. */
export function ociCapabilities(
  granted: readonly string[],
  added: readonly string[],
  isRoot: boolean,
): Record<string, string[]> {
  const prefixed = granted.map((name) => `CAP_${name}`);
  const asked = new Set(added.includes("ALL") ? [] : expand(added));
  const ambient = prefixed.filter((name) => asked.has(name.slice(4)));
  return isRoot
    ? { bounding: prefixed, effective: prefixed, permitted: prefixed, inheritable: [], ambient: [] }
    : { bounding: prefixed, effective: ambient, permitted: ambient, inheritable: ambient, ambient };
}
