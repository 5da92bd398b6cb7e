import { readFileSync, statSync } from "node:fs";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import type { Call } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import { shortHash } from "../../../base/id.ts";
import { fileExists } from "../../../host/file.ts";
import { hostFault } from "../../../host/errno.ts";
import { namesIn } from "../../monitor/record.ts";
import { unpackLz4 } from "./lz4.ts";

export interface GuestKernel {
  /** As its modules' directory is called: `6.1.0-56-cloud-amd64`. */
  readonly version: string;
  /** What QEMU boots: an uncompressed kernel where it can be had, which saves the guest from unpacking it. */
  readonly path: string;
}

/** More than this is no kernel. */
const maxKernelBytes = 512 * 2 ** 20;

/**
 * Where kernels lie, as their packages have them: one that the set-up unpacked for guests alone, so that the host's own
 * boot menu never sees it, then those that the host itself boots.
 */
const kernelTrees = ["/usr/lib/croft/kernel", "/"];

const missingHint = "the set-up (npm start) fetches one; or install one: apt-get install linux-image-cloud-amd64";

/** The distribution's kernel for guests, newest first; any other kernel of it when there is none of those. */
export function findKernel(): string {
  const found = kernelTrees.flatMap((tree) => {
    const names = namesIn(join(tree, "boot")).filter((name) => name.startsWith(kernelPrefix));
    return names.map((name) => ({ path: join(tree, "boot", name), version: name.slice(kernelPrefix.length) }));
  });
  const newest = found
    .filter(({ version }) => isDirectory(modulesDirectory(version)))
    .sort((left, right) => rank(right.version) - rank(left.version) || compareVersions(right.version, left.version))[0];
  if (newest !== undefined) return newest.path;
  throw new Fault("unsupported", "there is no kernel for guests", { hint: missingHint });
}

const kernelPrefix = "vmlinuz-";

function rank(version: string): number {
  return version.includes("cloud") ? 1 : 0;
}

function compareVersions(left: string, right: string): number {
  return left.localeCompare(right, "en", { numeric: true });
}

export function modulesDirectory(version: string): string {
  const places = kernelTrees.map((tree) => join(tree, "lib/modules", version));
  return places.find(isDirectory) ?? join("/lib/modules", version);
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** The kernel at `path` made ready to boot, once for each version of the file. `unsupported` when it is none. */
export async function prepareKernel(path: string, cacheDirectory: string, call: Call): Promise<GuestKernel> {
  const facts = statSync(path, { throwIfNoEntry: false });
  if (facts === undefined) {
    throw new Fault("unsupported", `there is no kernel at ${path}`, { hint: missingHint });
  }
  // With a number of our own: what an earlier version unpacked may be damaged.
  const name = `kernel-${shortHash([path, facts.size, facts.mtimeMs, facts.ino, 2].join("\0"), 12)}`;
  const cached = join(cacheDirectory, name);
  const known = namesIn(cacheDirectory).find((entry) => entry.startsWith(`${name}@`) && !entry.includes(".new-"));
  if (known !== undefined) return { version: known.slice(name.length + 1), path: join(cacheDirectory, known) };
  const image = readKernel(path, facts.size);
  const version = versionOf(image, path);
  const target = `${cached}@${version}`;
  await mkdir(cacheDirectory, { recursive: true, mode: 0o700 });
  const bootable = await unpackKernel(image, call);
  await writeFile(`${target}.new-${process.pid}`, bootable, { mode: 0o644, flush: true });
  await rename(`${target}.new-${process.pid}`, target);
  if (!(await fileExists(target))) throw new Fault("bug", `${target} is not where it was put`);
  return { version, path: target };
}

function readKernel(path: string, sizeBytes: number): Buffer {
  if (sizeBytes > maxKernelBytes) throw new Fault("unsupported", `${path} is not a kernel: it is too large`);
  try {
    return readFileSync(path);
  } catch (error) {
    throw hostFault(error, `read the kernel ${path}`);
  }
}

/** Places of the boot protocol: `Documentation/arch/x86/boot.rst` of the kernel. */
const setupSectors = 0x1f1;
const headerMagic = 0x202;
const versionPointer = 0x20e;
const payloadOffset = 0x248;
const payloadLength = 0x24c;
const sectorBytes = 512;

function isBzImage(image: Buffer): boolean {
  return image.length > 0x260 && image.toString("latin1", headerMagic, headerMagic + 4) === "HdrS";
}

function isElf(image: Uint8Array): boolean {
  return image[0] === 0x7f && image[1] === 0x45 && image[2] === 0x4c && image[3] === 0x46;
}

function versionOf(image: Buffer, path: string): string {
  if (isBzImage(image)) {
    const start = image.readUInt16LE(versionPointer) + sectorBytes;
    const text = image.toString("latin1", start, start + 200);
    const version = /^[\w.+~-]+/.exec(text)?.[0];
    if (version !== undefined) return version;
  }
  if (isElf(image)) {
    const at = image.indexOf("Linux version ");
    const version = /^Linux version ([\w.+~-]+)/.exec(image.toString("latin1", at, at + 200))?.[1];
    if (at !== -1 && version !== undefined) return version;
  }
  throw new Fault("unsupported", `${path} is not a kernel that can be booted`, { hint: missingHint });
}

/** The kernel without its packing; as it is when that is not to be had: it can be booted all the same. */
async function unpackKernel(image: Buffer, call: Call): Promise<Uint8Array> {
  if (!isBzImage(image)) return image;
  const sectors = image[setupSectors] === 0 ? 4 : (image[setupSectors] ?? 4);
  const start = (sectors + 1) * sectorBytes + image.readUInt32LE(payloadOffset);
  const payload = image.subarray(start, start + image.readUInt32LE(payloadLength));
  try {
    const unpacked = await unpack(payload, call);
    return unpacked !== undefined && isElf(unpacked) && canStartAlone(unpacked) ? unpacked : image;
  } catch (error) {
    if (isFault(error, "cancelled")) throw error;
    return image;
  }
}

async function unpack(payload: Buffer, call: Call): Promise<Buffer | undefined> {
  const limit = { maxOutputLength: maxKernelBytes };
  const magic = payload.readUInt32BE(0);
  // What follows the payload proper is its unpacked size, which some unpackers would take for damage.
  if (magic === 0x0221_4c18) return await unpackTwice(payload, call);
  if (magic === 0x28b5_2ffd) return await promisify(zstdDecompress)(payload.subarray(0, -4), limit);
  if (magic >>> 16 === 0x1f8b) return await promisify(gunzip)(payload, limit);
  return undefined;
}

/**
 * LZ4 has no checksum, and a kernel with one wrong byte is kept and stands still in every guest. Undefined when two tries do
 * not agree: then it is booted as it is packed.
 */
async function unpackTwice(payload: Buffer, call: Call): Promise<Buffer | undefined> {
  const first = await unpackLz4(payload, maxKernelBytes, call);
  const second = await unpackLz4(payload, maxKernelBytes, call);
  return first.equals(second) ? first : undefined;
}

/** Whether it has the note by which QEMU finds where to begin (PVH): owner `Xen`, type 18. */
function canStartAlone(kernel: Buffer): boolean {
  const note = Buffer.from([4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, 0x58, 0x65, 0x6e, 0]);
  const short = Buffer.from(note);
  short[4] = 4;
  return kernel.includes(note) || kernel.includes(short);
}
