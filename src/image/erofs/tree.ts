import type { Attributes, FileType } from "./format.ts";
import type { Xattrs } from "./xattr.ts";

/**
 * The tree of names that is held in memory until a file system is complete. A leaf's inode is already in the file when
 * the leaf exists, so all that is kept of it is where. Names are byte strings, one `latin1` character a byte: compact,
 * and comparing two of them compares their bytes, which is the order EROFS wants.
 */
export type Node = Leaf | Directory;

export interface Leaf {
  readonly type: Exclude<FileType, "directory">;
  /** Where its inode lies in the file, divided by 32. */
  readonly inodeNumber: number;
  /** How many names lead to it; more than one for hard links. Zero until the tree is complete. */
  links: number;
}

export interface Directory {
  readonly type: "directory";
  readonly children: Map<string, Node>;
  attributes: Attributes;
  xattrs: Xattrs;
}
