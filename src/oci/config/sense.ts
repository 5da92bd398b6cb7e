import { normalize } from "node:path";
import { isJson, type Json, own, recordsIn } from "./shape.ts";

/**
 * What the specification demands beyond the shape of single fields. `config` has the right shape. Returns what is
 * wrong, one sentence a finding, each beginning with the field.
 */
export function findingsOfSense(config: Json): readonly string[] {
  return [
    ...versionFindings(config),
    ...rlimitFindings(own(config, "process")),
    ...namespaceFindings(config),
    ...mountFindings(config),
    ...groupFindings(config),
    ...deviceFindings(config),
    ...seccompFindings(config),
  ];
}

/** Also for the process that `exec` reads. */
export function rlimitFindings(process: unknown): readonly string[] {
  const seen = new Set<unknown>();
  return recordsIn(process, "rlimits").flatMap((limit, index) => {
    const at = `process.rlimits[${index}]`;
    const findings: string[] = [];
    if (seen.has(limit["type"])) findings.push(`${at}.type: ${String(limit["type"])} is there twice`);
    seen.add(limit["type"]);
    if (Number(limit["soft"]) > Number(limit["hard"])) {
      findings.push(`${at}.soft: ${String(limit["soft"])} is above the hard limit ${String(limit["hard"])}`);
    }
    return findings;
  });
}

function versionFindings(config: Json): readonly string[] {
  const version = String(config["ociVersion"]);
  return version.startsWith("1.") ? [] : [`ociVersion: ${version} is not supported; 1.0 to 1.2 are`];
}

function namespaceFindings(config: Json): readonly string[] {
  const linux = own(config, "linux");
  const findings: string[] = [];
  const kinds = new Set<unknown>();
  for (const [index, { type }] of recordsIn(linux, "namespaces").entries()) {
    if (kinds.has(type)) findings.push(`linux.namespaces[${index}].type: ${String(type)} is there twice`);
    kinds.add(type);
  }
  const needs = (field: string, kind: string, isThere: boolean): void => {
    if (isThere && !kinds.has(kind)) findings.push(`${field}: needs a namespace of type ${kind} in linux.namespaces`);
  };
  needs("hostname", "uts", isFilled(own(config, "hostname")));
  needs("domainname", "uts", isFilled(own(config, "domainname")));
  for (const field of ["uidMappings", "gidMappings"]) {
    needs(`linux.${field}`, "user", recordsIn(linux, field).length > 0);
    for (const [index, { size }] of recordsIn(linux, field).entries()) {
      if (size === 0) findings.push(`linux.${field}[${index}].size: must not be 0`);
    }
  }
  needs("linux.timeOffsets", "time", isJson(own(linux, "timeOffsets")));
  return findings;
}

function mountFindings(config: Json): readonly string[] {
  return recordsIn(config, "mounts").flatMap((mount, index) => {
    const at = `mounts[${index}]`;
    const findings: string[] = [];
    const destination = String(mount["destination"]);
    if (leadsOut(destination)) findings.push(`${at}.destination: "${destination}" leads out of the root`);
    const isBind = binds(mount);
    const source = mount["source"];
    if (isBind && !isFilled(source)) findings.push(`${at}.source: a bind mount needs what it binds`);
    if (isBind && typeof source === "string" && leadsOut(source)) {
      findings.push(`${at}.source: "${source}" leads out of the bundle; a path elsewhere must be absolute`);
    }
    if (!isBind && !isFilled(mount["type"])) findings.push(`${at}.type: is missing`);
    for (const [one, other] of [
      ["uidMappings", "gidMappings"],
      ["gidMappings", "uidMappings"],
    ] as const) {
      if (recordsIn(mount, one).length > 0 && recordsIn(mount, other).length === 0) {
        findings.push(`${at}.${other}: is missing beside ${one}`);
      }
    }
    return findings;
  });
}

/** Whether it binds a directory or file of the host. */
export function binds(mount: Json): boolean {
  const options = Array.isArray(mount["options"]) ? mount["options"] : [];
  return mount["type"] === "bind" || options.includes("bind") || options.includes("rbind");
}

/** For runtimes it is a path beneath each tree of control groups, or SLICE:PREFIX:NAME of systemd. */
function groupFindings(config: Json): readonly string[] {
  const path = own(own(config, "linux"), "cgroupsPath");
  if (!isFilled(path) || !path.split(/[/:]/).includes("..")) return [];
  return [`linux.cgroupsPath: "${path}" must not hold ".."`];
}

function deviceFindings(config: Json): readonly string[] {
  const findings: string[] = [];
  const paths = new Map<string, number>();
  for (const [index, device] of recordsIn(own(config, "linux"), "devices").entries()) {
    const at = `linux.devices[${index}]`;
    if (device["type"] === "a") findings.push(`${at}.type: expected one of b, c, u, p, found "a"`);
    if (device["type"] !== "p") {
      for (const name of ["major", "minor"]) {
        if (typeof device[name] !== "number") findings.push(`${at}.${name}: is missing`);
      }
    }
    const path = normalize(String(device["path"]));
    if (path === "/") findings.push(`${at}.path: expected the path of a file, found "/"`);
    paths.set(path, index);
  }
  return findings;
}

function seccompFindings(config: Json): readonly string[] {
  const seccomp = own(own(config, "linux"), "seccomp");
  const notifies = recordsIn(seccomp, "syscalls").some(({ action }) => action === "SCMP_ACT_NOTIFY");
  if (own(seccomp, "defaultAction") === "SCMP_ACT_NOTIFY") {
    return ["linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would stop the program that installs the filter"];
  }
  if (notifies && !isFilled(own(seccomp, "listenerPath"))) {
    return ["linux.seccomp.listenerPath: is missing, and SCMP_ACT_NOTIFY needs it"];
  }
  return [];
}

/** A relative path that goes above where it starts; an absolute one says what it means. */
export function leadsOut(path: string): boolean {
  const flat = normalize(path);
  return flat === ".." || flat.startsWith("../");
}

function isFilled(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}
