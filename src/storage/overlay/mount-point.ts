import { rmdirSync } from "node:fs";
import { errnoOf } from "../../host/errno.ts";
import { isMountPoint, unmount } from "../../host/mount.ts";

/**
 * Unmounts `target` and removes the directory; nothing there is fine. Both are done when this returns its promise, so
 * nothing of ours runs in between; the promise resolves when the content is on the disk.
 */
export async function endMount(target: string): Promise<void> {
  const ending = isMountPoint(target) ? unmount(target, { detach: true }) : undefined;
  try {
    removeIfThere(() => rmdirSync(target));
  } finally {
    await ending;
  }
}

export function removeIfThere(remove: () => void): void {
  try {
    remove();
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
