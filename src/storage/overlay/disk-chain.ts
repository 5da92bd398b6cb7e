import { statSync } from "node:fs";
import { Fault, isFault } from "../../base/fault.ts";
import type { NewQcow2, Qcow2Header } from "../../base/qcow2.ts";
import { formatSize } from "../../base/unit.ts";
import { hostFault } from "../../host/errno.ts";
import type { DiskFormat, DiskSpec } from "../contract.ts";
import { readImage } from "./qcow2-file.ts";

/** A file that a disk reads from where it has nothing of its own. */
export interface Link {
  readonly path: string;
  readonly format: DiskFormat;
}

/** Nearest first. */
export type Chain = readonly Link[];

/** What a new disk stands on. A base that reads from yet another file is none of the library's, and is refused. */
export function chainOn(base: Link | undefined): Chain {
  if (base === undefined) return [];
  if (base.format === "qcow2") refuseChain(base.path, readBacking(base), []);
  return [base];
}

/** Throws `hostile` unless the image names exactly these files, one after the other. */
export function refuseChain(path: string, header: Qcow2Header, chain: Chain): void {
  let file = path;
  let found: Qcow2Header["backing"] = header.backing;
  for (const link of chain) {
    if (found?.file !== link.path || found.format !== link.format) throw foreign(file, found, link);
    file = link.path;
    found = link.format === "qcow2" ? readBacking(link).backing : undefined;
  }
  if (found !== undefined) throw foreign(file, found, undefined);
}

/** The image of a new disk on `beneath`, as large as asked for and never smaller than what it reads. */
export function newImage(spec: DiskSpec, beneath: Link | undefined): NewQcow2 {
  const leastBytes = beneath === undefined ? undefined : sizeOf(beneath);
  const wantedBytes = spec.sizeBytes ?? leastBytes;
  if (wantedBytes === undefined || wantedBytes <= 0) {
    throw new Fault("invalid", `disk ${spec.name} of ${spec.id} is blank and needs a size`);
  }
  if (wantedBytes > maxSizeBytes) {
    throw new Fault("invalid", `disk ${spec.name} of ${spec.id} cannot have more than ${formatSize(maxSizeBytes)}`);
  }
  if (leastBytes !== undefined && wantedBytes < leastBytes) {
    const [wanted, least] = [formatSize(wantedBytes), formatSize(leastBytes)];
    throw new Fault("precondition", `disk ${spec.name} of ${spec.id} cannot have ${wanted}: its image has ${least}`, {
      hint: `give it at least ${least}, or leave its size out`,
    });
  }
  const virtualSizeBytes = wholeSectors(wantedBytes);
  if (beneath === undefined) return { virtualSizeBytes };
  return { virtualSizeBytes, backing: { file: beneath.path, format: beneath.format } };
}

export function wholeSectors(sizeBytes: number): number {
  return Math.ceil(sizeBytes / sectorBytes) * sectorBytes;
}

const sectorBytes = 512;
const maxSizeBytes = 64 * 2 ** 40;

function sizeOf({ path, format }: Link): number {
  if (format === "qcow2") return readBacking({ path, format }).virtualSizeBytes;
  try {
    return wholeSectors(statSync(path).size);
  } catch (error) {
    throw hostFault(error, `read the image ${path}`);
  }
}

function readBacking({ path }: Link): Qcow2Header {
  try {
    return readImage(path);
  } catch (error) {
    if (!isFault(error, "not-found")) throw error;
    throw new Fault("not-found", `the image ${path}, from which a disk reads, is gone`, {
      cause: error,
      hint: "import that image again",
    });
  }
}

function foreign(file: string, found: Qcow2Header["backing"], known: Link | undefined): Fault {
  const said = found === undefined ? "no other file" : `${found.file} as ${found.format ?? "whatever it is"}`;
  const ours = known === undefined ? "none" : `${known.path} as ${known.format}`;
  return new Fault("hostile", `the disk ${file} says that it reads from ${said}; it was made to read from ${ours}`, {
    hint: "something changed it from outside: restore it from a backup, or remove it",
  });
}
