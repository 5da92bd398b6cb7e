import { Fault } from "../../../base/fault.ts";

/**
 * Writes the archive that a kernel unpacks as its first root: cpio in its `newc` form, as the kernel's own
 * `Documentation/driver-api/early-userspace/buffer-format.rst` defines it.
 */
export type CpioEntry =
  | { readonly kind: "directory"; readonly path: string; readonly mode: number }
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly content: Uint8Array }
  | { readonly kind: "link"; readonly path: string; readonly target: string }
  | {
      readonly kind: "device";
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

const typeBits = { directory: 0o040000, file: 0o100000, link: 0o120000, device: 0o020000 } as const;
const alignBytes = 4;
const maxContentBytes = 0xffff_ffff;

/** Paths are relative to the root, without a slash in front; a directory comes before what is in it. All belongs to root. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Uint8Array[] = [];
  entries.forEach((entry, index) => parts.push(...encode(entry, index + 1)));
  parts.push(...record({ name: "TRAILER!!!", inode: 0, mode: 0, links: 1, major: 0, minor: 0 }, new Uint8Array()));
  return Buffer.concat(parts);
}

function encode(entry: CpioEntry, inode: number): Uint8Array[] {
  if (entry.path === "" || entry.path.startsWith("/") || entry.path.includes("\0")) {
    throw new Fault("bug", `write the initramfs: "${entry.path}" is not a path in it`);
  }
  const permissions = entry.kind === "link" ? 0o777 : entry.mode & 0o7777;
  const content =
    entry.kind === "file" ? entry.content : entry.kind === "link" ? Buffer.from(entry.target) : new Uint8Array();
  const device = entry.kind === "device" ? entry : { major: 0, minor: 0 };
  const head = {
    name: entry.path,
    inode,
    mode: typeBits[entry.kind] | permissions,
    links: entry.kind === "directory" ? 2 : 1,
    major: device.major,
    minor: device.minor,
  };
  return record(head, content);
}

interface Head {
  readonly name: string;
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly major: number;
  readonly minor: number;
}

/** Thirteen numbers of eight hex digits, the name with its NUL, the content; both padded to four bytes. */
function record(head: Head, content: Uint8Array): Uint8Array[] {
  if (content.length > maxContentBytes) throw new Fault("invalid", `write the initramfs: ${head.name} is too large`);
  const name = Buffer.from(`${head.name}\0`);
  // Owner, group, time and the device it came from are nothing; the last field, a checksum, is unused in this form.
  const numbers = [head.inode, head.mode, 0, 0, head.links, 0, content.length, 0, 0, head.major, head.minor];
  const fields = [...numbers, name.length, 0].map((value) => value.toString(16).padStart(8, "0")).join("");
  const start = Buffer.concat([Buffer.from(`070701${fields}`), name]);
  return [start, padding(start.length), content, padding(content.length)];
}

function padding(length: number): Uint8Array {
  return new Uint8Array((alignBytes - (length % alignBytes)) % alignBytes);
}
