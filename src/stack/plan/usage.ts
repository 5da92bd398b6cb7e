import type { InstanceSection } from "../model.ts";

/** Secrets that a section uses, by name. */
export function secretsOf({ env, mounts, cloudInit }: InstanceSection): ReadonlySet<string> {
  const names = new Set<string>();
  for (const value of Object.values(env)) if ("secret" in value) names.add(value.secret);
  for (const mount of mounts) if (mount.kind === "secret") names.add(mount.secret);
  for (const text of textsOf(cloudInit)) if ("secret" in text) names.add(text.secret);
  return names;
}

/** Files beside the stack file that a section uses, by path. */
export function filesOf({ mounts, cloudInit, sshKeys = [] }: InstanceSection): ReadonlySet<string> {
  const paths = new Set<string>();
  for (const mount of mounts) if (mount.kind === "file") paths.add(mount.path);
  for (const text of textsOf(cloudInit)) if ("path" in text) paths.add(text.path);
  for (const key of sshKeys) if ("path" in key) paths.add(key.path);
  return paths;
}

/** Disk images and ISOs that its disks begin with, by name. */
export function diskImagesOf({ disks = [] }: InstanceSection): ReadonlySet<string> {
  return new Set(disks.flatMap(({ from }) => (from.kind === "blank" ? [] : [from.image])));
}

function textsOf(cloudInit: InstanceSection["cloudInit"]) {
  if (cloudInit?.kind !== "files") return [];
  const { userData, metaData, networkConfig } = cloudInit;
  return [userData, metaData, networkConfig].filter((text) => text !== undefined);
}
