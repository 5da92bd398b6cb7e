import { open } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";
import { isQcow2, parseQcow2, qcow2HeadBytes } from "../../base/qcow2.ts";
import { formatSize } from "../../base/unit.ts";
import { hostFault } from "../../host/errno.ts";
import type { DiskImage } from "./contract.ts";
import type { DiskImageLimits } from "./limit.ts";

export type ImageShape = Pick<DiskImage, "format" | "kind" | "virtualSizeBytes">;

export interface FoundImage extends ImageShape {
  readonly fileBytes: number;
}

/** So much of the beginning is looked at: the magic of btrfs is the last of all. */
const headBytes = 128 << 10;
const tailBytes = 512;
const sectorBytes = 512;

/**
 * What an image is, by what is in it and never by its name. Throws `hostile` for a qcow2 that reads from other files,
 * `unsupported` for formats of others and what is no image at all, `corrupt` for what is broken or cut off, `exhausted`
 * for what is larger than allowed.
 */
export async function inspectImage(path: string, what: string, limits: DiskImageLimits): Promise<FoundImage> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const head = Buffer.alloc(Math.min(size, headBytes));
    await file.read(head, 0, head.length, 0);
    const tail = Buffer.alloc(Math.min(size, tailBytes));
    await file.read(tail, 0, tail.length, size - tail.length);
    const shape = shapeOf(head, tail, size, what);
    if (shape.virtualSizeBytes > limits.maxVirtualBytes) {
      const [claimed, allowed] = [formatSize(shape.virtualSizeBytes), formatSize(limits.maxVirtualBytes)];
      throw new Fault("exhausted", `${what}: it claims to be ${claimed} large, more than the ${allowed} allowed`);
    }
    return { ...shape, fileBytes: size };
  } catch (error) {
    throw hostFault(error, `look into ${what}`);
  } finally {
    await file.close();
  }
}

/** Pure, for any bytes at all. */
export function shapeOf(head: Buffer, tail: Buffer, fileBytes: number, what: string): ImageShape {
  if (fileBytes === 0) throw new Fault("corrupt", `${what}: it is empty`);
  if (isQcow2(head)) return qcow2Shape(head, fileBytes, what);
  refuseForeign(head, tail, what);
  if (isIso(head)) return isoShape(head, fileBytes, what);
  if (!isRawDisk(head)) {
    throw new Fault("unsupported", `${what}: it is neither a qcow2 nor an ISO nor a raw disk`, {
      hint: "a raw disk begins with a partition table or a file system; see what was downloaded with: file",
    });
  }
  return { format: "raw", kind: "disk", virtualSizeBytes: Math.ceil(fileBytes / sectorBytes) * sectorBytes };
}

function qcow2Shape(head: Buffer, fileBytes: number, what: string): ImageShape {
  const { backing, virtualSizeBytes } = parseQcow2(head.subarray(0, qcow2HeadBytes), fileBytes, what);
  if (backing !== undefined) {
    throw new Fault(
      "hostile",
      `${what}: it reads from another file, ${JSON.stringify(backing.file)}, which is not opened`,
      {
        hint: "make one file of both where they come from: qemu-img convert -O qcow2",
        detail: { file: backing.file },
      },
    );
  }
  if (virtualSizeBytes === 0) throw new Fault("corrupt", `${what}: a disk of no size`);
  return { format: "qcow2", kind: "disk", virtualSizeBytes };
}

/** Formats that others use. Their readers are not of the kind that one wants to have at work on what strangers made. */
function refuseForeign(head: Buffer, tail: Buffer, what: string): void {
  const begins = (text: string, at = 0): boolean => head.toString("latin1", at, at + text.length) === text;
  const isVdi = head.length >= 68 && head.readUInt32LE(64) === 0xbe_da_10_7f;
  const name =
    begins("KDMV") || begins("COWD") || begins("# Disk DescriptorFile")
      ? "VMDK"
      : begins("conectix") || tail.toString("latin1", 0, 8) === "conectix"
        ? "VHD"
        : begins("vhdxfile")
          ? "VHDX"
          : isVdi
            ? "VDI"
            : begins("QED\0")
              ? "QED"
              : begins("LUKS\xba\xbe")
                ? "LUKS"
                : undefined;
  if (name === undefined) return;
  throw new Fault("unsupported", `${what}: it is a disk in the format ${name}, which is not read here`, {
    hint: "convert it first: qemu-img convert -O qcow2 FROM TO.qcow2",
  });
}

const isoDescriptorAt = 32_768;

function isIso(head: Buffer): boolean {
  return (
    head.length >= isoDescriptorAt + 2048 &&
    head.toString("latin1", isoDescriptorAt + 1, isoDescriptorAt + 6) === "CD001"
  );
}

function isoShape(head: Buffer, fileBytes: number, what: string): ImageShape {
  if (head[isoDescriptorAt] !== 1) throw new Fault("corrupt", `${what}: an ISO without its first descriptor`);
  const blocks = head.readUInt32LE(isoDescriptorAt + 80);
  const blockBytes = head.readUInt16LE(isoDescriptorAt + 128);
  const claimedBytes = blocks * blockBytes;
  if (blockBytes < 512 || claimedBytes === 0) throw new Fault("corrupt", `${what}: an ISO of no size`);
  if (claimedBytes > fileBytes) {
    throw new Fault("corrupt", `${what}: the ISO is cut off: it has ${fileBytes} of ${claimedBytes} bytes`);
  }
  return { format: "raw", kind: "iso", virtualSizeBytes: fileBytes };
}

/** By a boot sector or partition table, or by the file systems that images without one have. */
function isRawDisk(head: Buffer): boolean {
  const has = (at: number, bytes: string): boolean => head.toString("latin1", at, at + bytes.length) === bytes;
  return (
    has(510, "\x55\xaa") ||
    has(512, "EFI PART") ||
    has(1080, "\x53\xef") ||
    has(0, "XFSB") ||
    has(65_600, "_BHRfS_M") ||
    has(512, "LABELONE")
  );
}
