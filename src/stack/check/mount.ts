import type { KeyPath } from "../parse/place.ts";
import type { Sections } from "./document.ts";
import type { Written } from "./instance.ts";
import type { Report } from "./problem.ts";
import type { InstanceInput } from "./shape.ts";
import { suggest } from "./suggest.ts";
import { checkSecretName } from "./usage.ts";
import type { Usage } from "./usage.ts";

/** Whether a key of `volumes` names a place of the host rather than a volume. */
export function isBind(key: string): boolean {
  return key === "." || key === ".." || /^(\/|\.\/|\.\.\/)/.test(key);
}

/** Checks `volumes`, `files` and `tmpfs` of one instance: what they name, and that no two are mounted at one place. */
export function checkMounts(
  report: Report,
  sections: Sections,
  { path: at, input: instance }: Written<InstanceInput>,
  used: Usage,
): void {
  const taken = new Map<string, string>();
  const place = (destination: string, field: string, key: string | number, part: "key" | "value"): void => {
    const path = [...at, field, key];
    const reason = reservedPlace(destination, field);
    if (reason !== undefined)
      report.error(path, `nothing can be mounted at ${destination}: ${reason[0]}`, reason[1], part);
    const other = taken.get(destination);
    if (other !== undefined) {
      const where = other === field ? `${field} twice` : `${other} and ${field}`;
      report.error(path, `${destination} is in ${where}`, "mount each at a place of its own", part);
    }
    taken.set(destination, field);
  };
  for (const [key, mount] of Object.entries(instance.volumes ?? {})) {
    place(mount.path, "volumes", key, "value");
    checkSuffix(report, [...at, "volumes", key], mount.path);
    if (isBind(key)) checkBind(report, [...at, "volumes", key], key, mount.readOnly);
    else checkVolume(report, sections, [...at, "volumes", key], key, used);
    if (!isBind(key) && !mount.readOnly) checkSharing(report, [...at, "volumes", key], key, instance);
  }
  for (const [destination, file] of Object.entries(instance.files ?? {})) {
    place(destination, "files", destination, "key");
    if (file.secret !== undefined) {
      checkSecretName(report, sections, [...at, "files", destination, "secret"], file.secret, used);
    }
  }
  for (const [index, mount] of (instance.tmpfs ?? []).entries()) {
    place(mount.path, "tmpfs", Array.isArray(instance.tmpfs) ? index : mount.path, "value");
  }
}

/** The habit of command lines, where `:ro` is not a part of the path. */
function checkSuffix(report: Report, at: KeyPath, path: string): void {
  const [, own = "", suffix] = /^(.+):(ro|rw)$/.exec(path) ?? [];
  if (suffix === undefined) return;
  const mend = suffix === "ro" ? `{ path = ${JSON.stringify(own)}, read-only = true }` : JSON.stringify(own);
  report.error(at, `:${suffix} would be a part of the path`, `write ${mend}`, "value");
}

function checkVolume(report: Report, sections: Sections, at: KeyPath, volume: string, used: Usage): void {
  used.volume.add(volume);
  if (sections.volume.has(volume)) return;
  const hint = suggest(volume, [...sections.volume.keys()], "");
  report.error(
    at,
    `there is no volume "${volume}"`,
    hint.startsWith("did you mean")
      ? hint
      : `declare it as [volume.${volume}]; a directory of the host begins with / or ./`,
    "key",
  );
}

function checkBind(report: Report, at: KeyPath, source: string, readOnly: boolean): void {
  if (!/^\/+(proc|sys|dev|etc|root|boot|run|var\/run)?\/*$/.test(source) || readOnly) return;
  report.warn(
    at,
    `this lets the instance change ${source} of the host`,
    "mount only what it needs, or add read-only = true",
    "key",
  );
}

/** Two instances that write one volume at once are sometimes meant, and often a surprise. */
function checkSharing(report: Report, path: KeyPath, volume: string, instance: InstanceInput): void {
  if ((instance.replicas ?? 1) > 1) {
    report.warn(
      path,
      `all ${instance.replicas} replicas write the volume "${volume}"`,
      "make sure that the program can share it, or use one replica",
      "key",
    );
  } else if (instance.update?.order === "start-first") {
    report.warn(
      path,
      `during an update the old and the new instance both write the volume "${volume}"`,
      'use update = { order = "stop-first" }, unless the program can share it',
      "key",
    );
  }
}

/** Why nothing may be mounted there, and the mend. */
function reservedPlace(destination: string, field: string): readonly [string, string] | undefined {
  if (destination === "/") return ["it is the image's own root", "choose a directory beneath it"];
  if (destination === "/dev/shm" && field === "tmpfs") return undefined;
  if (/^\/(proc|sys|dev)(\/|$)/.test(destination)) return ["the kernel's own files are there", "choose another place"];
  if (["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"].includes(destination)) {
    return ["Croft writes this file itself", "use hostname and networks"];
  }
  return undefined;
}
