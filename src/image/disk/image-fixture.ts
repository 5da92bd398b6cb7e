import { createHash } from "node:crypto";
import { emptyQcow2 } from "../../base/qcow2.ts";

/** Small images of every kind, made here byte for byte. */

const gibibyte = 2 ** 30;

export function qcow2(virtualSizeBytes = gibibyte, backing?: string): Buffer {
  const image = backing === undefined ? {} : { backing: { file: backing, format: "raw" as const } };
  const { fileBytes, pieces } = emptyQcow2({ virtualSizeBytes, ...image });
  const file = Buffer.alloc(fileBytes);
  for (const { offset, bytes } of pieces) bytes.copy(file, offset);
  return file;
}

/** With one descriptor, and as many blocks as it claims. */
export function iso(blocks = 40): Buffer {
  const file = Buffer.alloc(blocks * 2048);
  file[32_768] = 1;
  file.write("CD001", 32_769, "latin1");
  file.writeUInt32LE(blocks, 32_768 + 80);
  file.writeUInt16LE(2048, 32_768 + 128);
  file.write("an installer", 34 * 2048);
  return file;
}

/** With a boot sector and something at its end. */
export function rawDisk(sizeBytes = 2 ** 20): Buffer {
  const file = Buffer.alloc(sizeBytes);
  file.write("\x55\xaa", 510, "latin1");
  file.write("the end", sizeBytes - 7);
  return file;
}

export function checksumOf(bytes: Uint8Array, algorithm: "sha256" | "sha512" = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}
