import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ProgramLaunch } from "../../contract.ts";
import type { InstancePaths } from "../../monitor/layout.ts";
import type { GuestLaunch, GuestMount } from "../guest/launch.ts";
import { guestMount } from "./volume.ts";

/** Keeps the contents of injected files beside the launch, on a file system that is memory. */
export function writeFiles(launch: ProgramLaunch, paths: InstancePaths): void {
  rmSync(paths.filesDir, { recursive: true, force: true });
  mkdirSync(paths.filesDir, { recursive: true, mode: 0o700 });
  launch.mounts.forEach((mount, index) => {
    if (mount.kind === "file") writeFileSync(join(paths.filesDir, String(index)), mount.content, { mode: 0o600 });
  });
}

/** A launch as it was recorded, with the contents of its files again, and those of bound files. */
export function withFiles(launch: ProgramLaunch, paths: InstancePaths): GuestLaunch {
  const mounts = launch.mounts.map((mount, index): GuestMount => {
    if (mount.kind === "file") return { ...mount, content: readFileSync(join(paths.filesDir, String(index))) };
    return guestMount(mount);
  });
  return { ...launch, mounts };
}
