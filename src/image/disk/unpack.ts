import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { formatSize } from "../../base/unit.ts";
import { hostFault } from "../../host/errno.ts";
import { startConfined } from "./confined.ts";
import type { DiskImageLimits } from "./limit.ts";
import { SparseWriter } from "./sparse-writer.ts";

export type Compression = "gzip" | "zstd" | "xz";

/** Endings that a compressed image's name has beyond the image's own. */
export const compressedEndings: readonly string[] = [".gz", ".xz", ".zst", ".zstd"];

const pieceBytes = 1 << 20;
const xzMemoryBytes = 256 * 2 ** 20;
const day = 24 * 3600;

/** Told by its first bytes, whatever it is called. Throws `unsupported` for what we do not unpack. */
export async function compressionOf(path: string): Promise<Compression | undefined> {
  const head = Buffer.alloc(6);
  const file = await open(path, "r");
  try {
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return compressionIn(head.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}

export function compressionIn(head: Buffer): Compression | undefined {
  const begins = (hex: string): boolean => head.subarray(0, hex.length / 2).equals(Buffer.from(hex, "hex"));
  if (begins("1f8b")) return "gzip";
  if (begins("28b52ffd")) return "zstd";
  if (begins("fd377a585a00")) return "xz";
  const other = [
    ["425a68", "bzip2"],
    ["504b0304", "zip"],
    ["377abcaf271c", "7z"],
    ["04224d18", "lz4"],
  ].find(([hex = ""]) => begins(hex));
  if (other === undefined) return undefined;
  throw new Fault("unsupported", `the image is packed with ${other[1]}, which is not unpacked here`, {
    hint: "unpack it and import what comes out",
  });
}

/**
 * Writes what is packed in `from` to the new file `to`, which is on the disk then. Throws `hostile` for what grows
 * without bounds, `exhausted` beyond the size that is allowed, `corrupt` for what cannot be unpacked.
 */
export async function unpack(
  from: { readonly path: string; readonly sizeBytes: number; readonly compression: Compression },
  to: string,
  limits: DiskImageLimits,
  onProgress: (sizeBytes: number) => void,
  call: Call,
): Promise<void> {
  await using writer = await SparseWriter.open(to, "new");
  const unpacked = from.compression === "xz" ? byProgram(from.path, call) : byLibrary(from.path, from.compression);
  for await (const chunk of unpacked) {
    throwIfCancelled(call);
    await writer.write(chunk);
    refuseGrowth(writer.sizeBytes, from.sizeBytes, limits);
    onProgress(writer.sizeBytes);
  }
  await writer.finish();
}

function refuseGrowth(unpackedBytes: number, packedBytes: number, limits: DiskImageLimits): void {
  if (unpackedBytes > limits.maxUnpackedBytes) {
    throw new Fault("exhausted", `unpacked, the image has more than ${formatSize(limits.maxUnpackedBytes)}`);
  }
  if (unpackedBytes > limits.ratioFloorBytes && unpackedBytes > packedBytes * limits.maxRatio) {
    throw new Fault("hostile", `${packedBytes} bytes unpack to more than ${formatSize(unpackedBytes)}`, {
      hint: "if that is meant, unpack it and import what comes out",
    });
  }
}

async function* byLibrary(path: string, compression: "gzip" | "zstd"): AsyncGenerator<Buffer> {
  const options = { chunkSize: pieceBytes };
  const unpacker = compression === "gzip" ? createGunzip(options) : createZstdDecompress(options);
  const packed = createReadStream(path, { highWaterMark: pieceBytes });
  packed.on("error", (error) => unpacker.destroy(error));
  try {
    yield* packed.pipe(unpacker) as AsyncIterable<Buffer>;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (!/^(Z_|ZSTD_|ERR_)/.test(code)) throw hostFault(error, `unpack ${path}`);
    throw new Fault("corrupt", `the image cannot be unpacked: ${error instanceof Error ? error.message : code}`, {
      cause: error,
    });
  } finally {
    packed.destroy();
    unpacker.destroy();
  }
}

/** Node has no xz. The program is not the kind that one wants to run as root. */
async function* byProgram(path: string, call: Call): AsyncGenerator<Buffer> {
  const argv = [
    "xz",
    "--decompress",
    "--stdout",
    "--format=xz",
    "--threads=1",
    `--memlimit-decompress=${xzMemoryBytes}`,
  ];
  const xz = await startConfined(argv, path, { memoryBytes: 4 * xzMemoryBytes, seconds: day }, call);
  let whole = false;
  try {
    yield* xz.stdout as Readable & AsyncIterable<Buffer>;
    whole = true;
  } finally {
    if (!whole) xz.kill();
  }
  const { code, signal, lastWords } = await xz.ended;
  throwIfCancelled(call);
  if (code === 0) return;
  throw new Fault("corrupt", `the image cannot be unpacked: ${lastWords || `xz ended with ${signal ?? code}`}`);
}
