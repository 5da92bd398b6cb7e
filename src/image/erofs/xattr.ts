/** Extended attributes as EROFS stores them behind an inode. Names and values are byte strings (one `latin1` char a byte). */

export type Xattrs = ReadonlyMap<string, string>;

export const noXattrs: Xattrs = new Map();

/** Name prefixes that have a number in the format; a name with none of them cannot be stored. */
const prefixes: readonly (readonly [prefix: string, index: number])[] = [
  ["user.", 1],
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["trusted.", 4],
  ["security.", 6],
];

/** The largest value a field of 16 bits can say; Linux itself allows one byte more. */
const maxValueBytes = 0xffff;
const headerBytes = 12;
/** `i_xattr_icount` has 16 bits and counts words behind the header. */
const maxBodyBytes = headerBytes + 4 * (0xffff - 1);

function prefixOf(name: string): readonly [prefix: string, index: number] | undefined {
  return prefixes.find(([prefix]) => (prefix.endsWith(".") ? name.startsWith(prefix) : name === prefix));
}

/** Whether the format and the kernel know the namespace of `name`. */
export function isStorableXattr(name: string): boolean {
  const prefix = prefixOf(name);
  return prefix !== undefined && (name.length > prefix[0].length || !prefix[0].endsWith("."));
}

/** Bytes that `xattrs` take behind an inode, or undefined when they are more than an inode can carry. */
export function measureXattrs(xattrs: Xattrs): number | undefined {
  if (xattrs.size === 0) return 0;
  let bytes = headerBytes;
  for (const [name, value] of xattrs) {
    const suffixBytes = name.length - (prefixOf(name)?.[0].length ?? 0);
    if (suffixBytes > 255 || value.length > maxValueBytes) return undefined;
    bytes += roundUpToWord(4 + suffixBytes + value.length);
  }
  return bytes > maxBodyBytes ? undefined : bytes;
}

/** Writes what `measureXattrs` measured at `offset` of `target`, which must be zeroed there. */
export function encodeXattrs(xattrs: Xattrs, target: Buffer, offset: number): void {
  let at = offset + headerBytes;
  for (const [name, value] of xattrs) {
    const [prefix, index] = prefixOf(name) ?? ["", 0];
    const suffix = name.slice(prefix.length);
    target.writeUInt8(suffix.length, at);
    target.writeUInt8(index, at + 1);
    target.writeUInt16LE(value.length, at + 2);
    target.write(suffix, at + 4, "latin1");
    target.write(value, at + 4 + suffix.length, "latin1");
    at += roundUpToWord(4 + suffix.length + value.length);
  }
}

function roundUpToWord(bytes: number): number {
  return (bytes + 3) & ~3;
}
