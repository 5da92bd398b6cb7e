import { allCapabilities } from "../../instance/monitor/capability.ts";
import { type LimitName, limitUnits, type ProcessLimit, type ProcessSettings } from "../../instance/guest.ts";
import { own, recordsIn } from "../config/shape.ts";

/** How a process of a configuration runs in a guest, of its main one and of those of `exec`. */
export function processSettings(process: unknown): ProcessSettings {
  const capabilities = own(process, "capabilities");
  const umask = own(own(process, "user"), "umask");
  return {
    bounding: plainNames(listOf(capabilities, "bounding")),
    ambient: plainNames(listOf(capabilities, "ambient")),
    limits: recordsIn(process, "rlimits").flatMap(limitOf),
    gainsPrivileges: own(process, "noNewPrivileges") !== true,
    ...(typeof umask === "number" ? { umask } : {}),
  };
}

/** `exec` may leave out what the container's own process has. */
export function execSettings(process: unknown, main: ProcessSettings): ProcessSettings {
  const said = processSettings(process);
  return {
    ...main,
    ...(own(process, "capabilities") == null ? {} : { bounding: said.bounding, ambient: said.ambient }),
    ...(said.limits.length === 0 ? {} : { limits: said.limits }),
    ...(own(process, "noNewPrivileges") == null ? {} : { gainsPrivileges: said.gainsPrivileges }),
    ...(said.umask === undefined ? {} : { umask: said.umask }),
  };
}

/** What a guest cannot do for a process, one sentence each. */
export function processFindings(process: unknown): readonly string[] {
  const lacking = ["scheduler", "ioPriority", "execCPUAffinity"].filter((name) => own(process, name) != null);
  return [...lacking.map((name) => `process.${name}: a microVM cannot do it`), ...limitFindings(process)];
}

function limitFindings(process: unknown): readonly string[] {
  return recordsIn(process, "rlimits").flatMap(({ type, soft, hard }, index) => {
    const at = `process.rlimits[${index}]`;
    const name = nameOf(type);
    if (name === undefined) return [`${at}.type: a microVM cannot set ${String(type)}`];
    const { bytes } = limitUnits[name];
    const isWhole = [soft, hard].every((value) => (valueOf(value) ?? 0) % bytes === 0);
    return isWhole ? [] : [`${at}: a microVM sets ${String(type)} in steps of ${bytes} bytes`];
  });
}

function limitOf({ type, soft, hard }: Readonly<Record<string, unknown>>): ProcessLimit[] {
  const name = nameOf(type);
  if (name === undefined) return [];
  const [softValue, hardValue] = [valueOf(soft), valueOf(hard)];
  return [
    {
      name,
      ...(softValue === undefined ? {} : { soft: softValue }),
      ...(hardValue === undefined ? {} : { hard: hardValue }),
    },
  ];
}

function nameOf(type: unknown): LimitName | undefined {
  const name = String(type).replace(/^RLIMIT_/, "");
  return Object.hasOwn(limitUnits, name) ? (name as LimitName) : undefined;
}

/** RLIM_INFINITY is 2^64 - 1, which JavaScript rounds; what is near it means the same to any kernel. */
function valueOf(value: unknown): number | undefined {
  const number = Number(value);
  return number < 2 ** 53 ? number : undefined;
}

/** What Linux does not know is left out, as runc does it. */
function plainNames(capabilities: readonly string[]): readonly string[] {
  return capabilities.map((name) => name.replace(/^CAP_/, "")).filter((name) => allCapabilities.includes(name));
}

/** By numbers, as the caller found them in the image: user, group, and those it belongs to besides. */
export function userOf(user: unknown): string {
  const number = (name: string): number => {
    const value = own(user, name);
    return typeof value === "number" ? value : 0;
  };
  const additional = own(user, "additionalGids");
  const groups = (Array.isArray(additional) ? additional : []).filter((group) => group !== number("gid"));
  return [number("uid"), number("gid"), ...(groups.length === 0 ? [] : [groups.join(",")])].join(":");
}

export function listOf(value: unknown, name: string): readonly string[] {
  const field = own(value, name);
  return Array.isArray(field) ? field.filter((entry): entry is string => typeof entry === "string") : [];
}
