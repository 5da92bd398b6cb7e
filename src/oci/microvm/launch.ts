import { statSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { InstanceId } from "../../base/id.ts";
import type { LaunchMount, Limits, ProgramLaunch } from "../../instance/contract.ts";
import type { GuestSettings } from "../../instance/guest.ts";
import { type Bundle, refused } from "../config/bundle.ts";
import { isJson, type Json, own, recordsIn } from "../config/shape.ts";
import { resourceFindings } from "./resource.ts";
import { listOf, processFindings, processSettings, userOf } from "./process.ts";

/**
 * What a configuration means for a microVM. Protections of the host's kernel (seccomp, AppArmor, SELinux, masked paths) do
 * not apply: the guest has a kernel of its own. What would change what the program sees or may do is refused.
 */
export function launchOf(
  id: string,
  bundle: Bundle,
): { readonly launch: ProgramLaunch; readonly settings: Omit<GuestSettings, "network"> } {
  const { config } = bundle;
  const process = own(config, "process");
  const linux = own(config, "linux");
  const findings = [
    ...namespaceFindings(linux),
    ...deviceFindings(linux),
    ...otherFindings(config),
    ...processFindings(process),
    ...resourceFindings(own(linux, "resources"), "linux.resources."),
  ];
  const mounts = recordsIn(config, "mounts").flatMap((mount, index) =>
    mountOf(mount, index, bundle.directory, findings),
  );
  if (findings.length > 0) throw new Fault("unsupported", refused(bundle.configFile, findings).message);
  const hostname = textOf(config, "hostname") ?? "microvm";
  const launch: ProgramLaunch = {
    kind: "program",
    id: id as InstanceId,
    attachment: { kind: "tap", taps: [], resolvers: [] },
    hostname,
    limits: limitsOf(own(linux, "resources")),
    log: { maxBytes: 0 },
    labels: {},
    root: { kind: "directory", path: bundle.root },
    argv: listOf(process, "args"),
    env: environmentOf(listOf(process, "env")),
    user: userOf(own(process, "user")),
    workdir: textOf(process, "cwd") ?? "/",
    terminal: own(process, "terminal") === true,
    stdin: true,
    readOnlyRoot: own(own(config, "root"), "readonly") === true,
    mounts,
    // What it has is among the settings of its process.
    capabilities: { add: [], drop: [] },
    stopSignal: "SIGTERM",
    warmStart: false,
  };
  return { launch, settings: { kernel: kernelOf(config), process: processSettings(process) } };
}

function namespaceFindings(linux: unknown): string[] {
  const namespaces = recordsIn(linux, "namespaces");
  const findings = namespaces.flatMap(({ type, path }, index) => {
    const at = `linux.namespaces[${index}]`;
    if (type === "user") return [`${at}: a microVM has users of its own; a user namespace cannot be had beside`];
    if (type === "pid" && path !== undefined) return [`${at}.path: a microVM cannot see another's processes`];
    return [];
  });
  if (!namespaces.some(({ type }) => type === "network")) {
    findings.push("linux.namespaces: a microVM cannot have the host's network; it needs a namespace of type network");
  }
  if (!namespaces.some(({ type }) => type === "pid")) {
    findings.push("linux.namespaces: a microVM cannot see the host's processes; it needs a namespace of type pid");
  }
  return findings;
}

function deviceFindings(linux: unknown): string[] {
  return recordsIn(linux, "devices").map(
    ({ path }, index) => `linux.devices[${index}]: a microVM has no ${String(path)}`,
  );
}

function otherFindings(config: Json): string[] {
  const hooks = own(config, "hooks");
  const findings: string[] = [];
  if (recordsIn(hooks, "startContainer").length > 0) {
    findings.push("hooks.startContainer: runs inside, where a microVM has nothing to run it before its program");
  }
  if (recordsIn(hooks, "createContainer").length > 0) {
    findings.push("hooks.createContainer: runs in the container's mounts, which are the guest's own");
  }
  for (const name of ["netDevices", "memoryPolicy", "timeOffsets", "personality", "intelRdt"]) {
    if (own(own(config, "linux"), name) != null) findings.push(`linux.${name}: a microVM cannot do it`);
  }
  return findings;
}

/** What the guest brings itself. */
const ownMounts = new Set(["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"]);
const ownPlaces = new Set(["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys/fs/cgroup"]);

function mountOf(mount: Json, index: number, bundle: string, findings: string[]): LaunchMount[] {
  const destination = String(mount["destination"]);
  const type = mount["type"];
  const options = listOf(mount, "options");
  const at = `mounts[${index}]`;
  if (ownPlaces.has(destination) || (typeof type === "string" && ownMounts.has(type))) return [];
  if (type === "tmpfs") return [tmpfsOf(destination, options)];
  if (type !== "bind" && !options.includes("bind") && !options.includes("rbind")) {
    findings.push(`${at}.type: a microVM cannot mount ${String(type)}`);
    return [];
  }
  const source = absolute(String(mount["source"]), bundle);
  const readOnly = options.includes("ro") || options.includes("rro");
  const facts = statSync(source, { throwIfNoEntry: false });
  if (facts === undefined) findings.push(`${at}.source: ${source} does not exist`);
  else if (facts.isDirectory()) return [{ kind: "bind", source, destination, readOnly }];
  else if (!facts.isFile()) findings.push(`${at}.source: ${source} is neither a directory nor a file`);
  else return [{ kind: "bind", source, destination, readOnly }];
  return [];
}

function absolute(path: string, bundle: string): string {
  return path.startsWith("/") ? path : join(bundle, path);
}

function tmpfsOf(destination: string, options: readonly string[]): LaunchMount {
  const value = (name: string): string | undefined =>
    options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const size = value("size");
  const sizeBytes = size === undefined ? undefined : bytesOf(size);
  const mode = Number.parseInt(value("mode") ?? "1777", 8);
  return {
    kind: "tmpfs",
    destination,
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    ...(Number.isNaN(mode) ? {} : { mode }),
  };
}

function bytesOf(size: string): number | undefined {
  const found = /^(\d+)([kmg]?)$/i.exec(size);
  if (found === null) return undefined;
  const unit = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }[(found[2] ?? "").toLowerCase()] ?? 1;
  return Number(found[1]) * unit;
}

/** Also for what `update` changes. 0 and less mean no limit. */
export function limitsOf(resources: unknown): Limits {
  const memoryBytes = numberOf(own(resources, "memory"), "limit");
  const pids = numberOf(own(resources, "pids"), "limit");
  const quota = numberOf(own(resources, "cpu"), "quota");
  const period = numberOf(own(resources, "cpu"), "period") ?? 100_000;
  return {
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
    ...(pids === undefined ? {} : { pids }),
    ...(quota === undefined ? {} : { cpus: quota / period }),
  };
}

function numberOf(value: unknown, name: string): number | undefined {
  const field = own(value, name);
  return typeof field === "number" && field > 0 && field < 2 ** 53 ? field : undefined;
}

export function environmentOf(pairs: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    pairs.flatMap((pair) => {
      const equals = pair.indexOf("=");
      return equals > 0 ? [[pair.slice(0, equals), pair.slice(equals + 1)]] : [];
    }),
  );
}

/** Of the guest's own kernel, by paths beneath /proc/sys. */
function kernelOf(config: Json): Readonly<Record<string, string>> {
  const sysctl = own(own(config, "linux"), "sysctl");
  const domain = textOf(config, "domainname");
  const said = Object.entries(isJson(sysctl) ? sysctl : {}).map(([name, value]) => {
    if (!/^[\w./-]+$/.test(name) || name.includes("..") || name.startsWith("/")) {
      throw new Fault("invalid", `linux.sysctl.${name}: is not the name of a setting`);
    }
    return [name.includes("/") ? name : name.replaceAll(".", "/"), String(value)];
  });
  return Object.fromEntries([...(domain === undefined ? [] : [["kernel/domainname", domain]]), ...said]) as Record<
    string,
    string
  >;
}

function textOf(value: unknown, name: string): string | undefined {
  const field = own(value, name);
  return typeof field === "string" && field !== "" ? field : undefined;
}
