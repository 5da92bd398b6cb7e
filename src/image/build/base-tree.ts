import { lstat, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { isFault } from "../../base/fault.ts";
import { resolveBeneath } from "../../host/beneath.ts";
import { mountErofs, mountOverlay, unmount } from "../../host/mount.ts";

export interface DirectoryFacts {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeMs: number;
}

/**
 * The file tree of an image, to look at while something is put on top of it: a new layer that names `/bin/tool` must
 * know that `/bin` is a link to `/usr/bin`, and one that names `/tmp/x` that `/tmp` is open to everybody, as its own
 * directory entries hide those beneath.
 */
export interface BaseTree {
  /** Where `path` leads in the image, free of links; undefined when there is nothing. Never leaves the image. */
  resolve(path: string): string | undefined;
  /** The directory at a path that `resolve` gave; undefined when it is something else. */
  directory(path: string): Promise<DirectoryFacts | undefined>;
}

const emptyTree: BaseTree = { resolve: () => undefined, directory: () => Promise.resolve(undefined) };

/**
 * Calls `action` with the tree of these layers (EROFS files, lowest first), mounted read-only beneath `workDir`, an
 * empty directory of the caller's. Mounts that a crash leaves there are taken away when the store is opened again.
 */
export async function withBaseTree<Value>(
  layerPaths: readonly string[],
  workDir: string,
  action: (tree: BaseTree) => Promise<Value>,
): Promise<Value> {
  if (layerPaths.length === 0) return await action(emptyTree);
  const targets: string[] = [];
  try {
    for (const [position, layer] of layerPaths.entries()) {
      const target = join(workDir, String(position));
      await mkdir(target);
      await mountErofs(layer, target);
      targets.push(target);
    }
    let root = targets[0] ?? "";
    if (targets.length > 1) {
      root = join(workDir, "root");
      await mkdir(root);
      await mountOverlay({ lowers: targets.toReversed(), target: root, readOnly: true });
      targets.push(root);
    }
    return await action(mountedTree(root));
  } finally {
    for (const target of targets.toReversed()) await unmount(target, { detach: true });
  }
}

function mountedTree(root: string): BaseTree {
  return {
    resolve(path) {
      try {
        return resolveBeneath(root, path);
      } catch (error) {
        if (isFault(error, "not-found")) return undefined;
        throw error;
      }
    },
    async directory(path) {
      const facts = await lstat(join(root, path));
      if (!facts.isDirectory()) return undefined;
      return { mode: facts.mode & 0o7777, uid: facts.uid, gid: facts.gid, mtimeMs: facts.mtimeMs };
    },
  };
}
