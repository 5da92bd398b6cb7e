import { Fault } from "../../base/fault.ts";

/** One 512-byte header of a tar, decoded as ustar, GNU, star or v7. Names are byte strings, one `latin1` char a byte. */
export interface TarHeader {
  readonly format: "v7" | "ustar" | "gnu";
  /** One character; NUL became "0". */
  readonly type: string;
  readonly name: string;
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeSec: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

export const tarBlockBytes = 512;

/**
 * Decodes a header block that is not all zeros.
 *
 * @throws Fault `corrupt` when the checksum or a number is wrong.
 */
export function decodeHeader(block: Buffer): TarHeader {
  verifyChecksum(block);
  const magic = block.toString("latin1", 257, 265);
  const format = magic === "ustar\x0000" ? "ustar" : magic === "ustar  \0" ? "gnu" : "v7";
  const typeByte = block[156] ?? 0;
  let name = text(block, 0, 100);
  // A directory of the oldest format is a file whose name ends in a slash.
  const type = typeByte !== 0 ? String.fromCharCode(typeByte) : name.endsWith("/") ? "5" : "0";
  if (format === "ustar") {
    // The star variant keeps two times in the last bytes of the prefix.
    const prefix = text(block, 345, block.toString("latin1", 508, 512) === "tar\0" ? 131 : 155);
    if (prefix !== "") name = `${prefix}/${name}`;
  }
  const isDevice = type === "3" || type === "4";
  return {
    format,
    type,
    name,
    linkName: text(block, 157, 100),
    mode: number(block, 100, 8, "mode"),
    uid: number(block, 108, 8, "owner"),
    gid: number(block, 116, 8, "group"),
    sizeBytes: number(block, 124, 12, "size"),
    mtimeSec: number(block, 136, 12, "time"),
    deviceMajor: isDevice && format !== "v7" ? number(block, 329, 8, "device number") : 0,
    deviceMinor: isDevice && format !== "v7" ? number(block, 337, 8, "device number") : 0,
  };
}

/** The sum of all bytes with the checksum's own counted as spaces. Some old writers summed signed bytes. */
function verifyChecksum(block: Buffer): void {
  let unsigned = 8 * 32;
  let signed = 8 * 32;
  for (let index = 0; index < tarBlockBytes; index += 1) {
    if (index === 148) index = 156;
    const byte = block[index] ?? 0;
    unsigned += byte;
    signed += byte < 128 ? byte : byte - 256;
  }
  const stored = number(block, 148, 8, "checksum");
  if (stored !== unsigned && stored !== signed) {
    throw new Fault("corrupt", `a tar header's checksum is ${stored} where its bytes sum up to ${unsigned}`);
  }
}

/** Bytes up to the first NUL. */
export function text(block: Buffer, offset: number, length: number): string {
  const end = block.indexOf(0, offset);
  return block.toString("latin1", offset, end === -1 || end > offset + length ? offset + length : end);
}

/**
 * A number as octal digits between spaces or NULs, or in binary, big-endian, when the first bit is set (GNU).
 *
 * @throws Fault `corrupt` when it is neither, or larger than 2^53.
 */
export function number(block: Buffer, offset: number, length: number, what: string): number {
  const first = block[offset] ?? 0;
  if (first & 0x80) return binaryNumber(block, offset, length, what);
  let at = offset;
  const end = offset + length;
  while (at < end && (block[at] === 0x20 || block[at] === 0)) at += 1;
  let value = 0;
  for (; at < end; at += 1) {
    const byte = block[at] ?? 0;
    if (byte === 0) return value;
    if (byte === 0x20) break;
    if (byte < 0x30 || byte > 0x37) throw badNumber(block, offset, length, what);
    value = value * 8 + (byte - 0x30);
  }
  for (; at < end; at += 1) {
    if (block[at] !== 0x20 && block[at] !== 0) throw badNumber(block, offset, length, what);
  }
  return value;
}

function binaryNumber(block: Buffer, offset: number, length: number, what: string): number {
  // The second bit is the sign, in two's complement over all the bytes.
  const negative = ((block[offset] ?? 0) & 0x40) !== 0;
  let value = negative ? -1n : 0n;
  for (let index = 0; index < length; index += 1) {
    let byte = block[offset + index] ?? 0;
    if (index === 0) byte = negative ? byte | 0x80 : byte & 0x7f;
    value = (value << 8n) | BigInt(byte);
  }
  const result = Number(value);
  if (!Number.isSafeInteger(result)) throw badNumber(block, offset, length, what);
  return result;
}

function badNumber(block: Buffer, offset: number, length: number, what: string): Fault {
  const field = JSON.stringify(block.toString("latin1", offset, offset + length));
  return new Fault("corrupt", `the ${what} in a tar header is ${field}, which is not a number`);
}
