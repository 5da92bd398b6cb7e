import { existsSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../../base/fault.ts";
import { hostFault } from "../../../host/errno.ts";

/** A program of the host with what it needs to run elsewhere. */
export interface LinkedProgram {
  readonly path: string;
  /** The dynamic loader that the program names; run with the program as its argument, it needs no fixed place. */
  readonly loader: string;
  /** Libraries by the name that they are asked for under, with the file that the host has for it. */
  readonly libraries: ReadonlyMap<string, string>;
}

/** As the dynamic loader knows them, without asking it: running a program to see what it needs would be running it. */
const directories = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];
const multiarch: Readonly<Record<string, string>> = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" };

/** `unsupported` when a library of it is not there. */
export function linkedProgram(path: string): LinkedProgram {
  const libraries = new Map<string, string>();
  const first = readElf(path);
  if (first.interpreter === undefined) throw new Fault("unsupported", `${path} needs no loader: a static program`);
  const waiting = [...first.needed];
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    if (libraries.has(name) || first.interpreter.endsWith(`/${name}`)) continue;
    const found = findLibrary(name);
    if (found === undefined) throw new Fault("unsupported", `${path} needs ${name}, which is not installed`);
    libraries.set(name, found);
    waiting.push(...readElf(found).needed);
  }
  return { path, loader: realpathSync(first.interpreter), libraries };
}

function findLibrary(name: string): string | undefined {
  const triplet = multiarch[process.arch];
  const places = directories.flatMap((directory) =>
    triplet === undefined ? [directory] : [join(directory, triplet), directory],
  );
  const found = places.map((place) => join(place, name)).find((path) => existsSync(path));
  return found === undefined ? undefined : realpathSync(found);
}

const programHeaderLoad = 1;
const programHeaderDynamic = 2;
const programHeaderInterpreter = 3;
const tagNeeded = 1n;
const tagStrings = 5n;

/** What a 64-bit little-endian ELF file says it needs. */
function readElf(path: string): { readonly interpreter: string | undefined; readonly needed: readonly string[] } {
  let file: Buffer;
  try {
    file = readFileSync(path);
  } catch (error) {
    throw hostFault(error, `read ${path}`);
  }
  try {
    return parseElf(file);
  } catch (error) {
    throw new Fault("corrupt", `read ${path}: not an ELF file of this machine`, { cause: error });
  }
}

interface Header {
  readonly type: number;
  readonly offset: number;
  readonly address: bigint;
  readonly sizeBytes: number;
}

export function parseElf(file: Buffer): {
  readonly interpreter: string | undefined;
  readonly needed: readonly string[];
} {
  if (file.readUInt32BE(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) throw new Error("no ELF file");
  const start = Number(file.readBigUInt64LE(32));
  const entryBytes = file.readUInt16LE(54);
  const headers = Array.from({ length: file.readUInt16LE(56) }, (_, index): Header => {
    const at = start + index * entryBytes;
    return {
      type: file.readUInt32LE(at),
      offset: Number(file.readBigUInt64LE(at + 8)),
      address: file.readBigUInt64LE(at + 16),
      sizeBytes: Number(file.readBigUInt64LE(at + 32)),
    };
  });
  const textAt = (offset: number): string => file.toString("utf8", offset, file.indexOf(0, offset));
  const interpreter = headers.find(({ type }) => type === programHeaderInterpreter);
  const dynamic = headers.find(({ type }) => type === programHeaderDynamic);
  const tags = dynamic === undefined ? [] : readTags(file, dynamic);
  const stringsAddress = tags.find(([tag]) => tag === tagStrings)?.[1];
  const segment = headers.find(
    ({ type, address, sizeBytes }) =>
      type === programHeaderLoad &&
      stringsAddress !== undefined &&
      stringsAddress >= address &&
      stringsAddress < address + BigInt(sizeBytes),
  );
  const strings =
    segment === undefined || stringsAddress === undefined
      ? 0
      : segment.offset + Number(stringsAddress - segment.address);
  return {
    interpreter: interpreter === undefined ? undefined : textAt(interpreter.offset),
    needed: tags.filter(([tag]) => tag === tagNeeded).map(([, value]) => textAt(strings + Number(value))),
  };
}

function readTags(file: Buffer, { offset, sizeBytes }: Header): (readonly [bigint, bigint])[] {
  const tags: (readonly [bigint, bigint])[] = [];
  for (let at = offset; at + 16 <= offset + sizeBytes; at += 16) {
    const tag = file.readBigInt64LE(at);
    if (tag === 0n) break;
    tags.push([tag, file.readBigUInt64LE(at + 8)]);
  }
  return tags;
}
