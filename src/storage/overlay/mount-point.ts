import { rmdirSync } from "node:fs";
import { errnoOf } from "../../host/errno.ts";
import { removeTree } from "../../host/file.ts";
import { isMountPoint, unmount } from "../../host/mount.ts";

/**
 * Unmounts `target` and removes the directory; nothing there is fine. Both are done when this returns its promise, so
 * nothing of ours runs in between; the promise resolves when the content is on the disk, unless it is to be abandoned.
 */
export async function endMount(target: string, fate: "kept" | "abandoned"): Promise<void> {
  const ending = isMountPoint(target) ? unmount(target, { detach: true, abandon: fate === "abandoned" }) : undefined;
  let strayed = false;
  try {
    removeIfThere(() => rmdirSync(target));
  } catch (error) {
    if (errnoOf(error) !== "ENOTEMPTY") throw error;
    strayed = true;
  } finally {
    await ending;
  }
  // What a program of a killed daemon wrote after the mount was gone. No data is ever kept on this side.
  if (strayed) await removeTree(target);
}

export function removeIfThere(remove: () => void): void {
  try {
    remove();
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
