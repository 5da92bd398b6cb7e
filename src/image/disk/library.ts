import { randomBytes } from "node:crypto";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { type Digest, shortHash } from "../../base/id.ts";
import { hostFault } from "../../host/errno.ts";
import { fileExists, removeTree } from "../../host/file.ts";
import { type Checksum, findChecksum, formatChecksum, parseChecksum } from "./checksum.ts";
import {
  type DiskImage,
  diskImageNamePattern,
  type DiskImages,
  type DiskImport,
  type ImageChecksum,
  type Verification,
} from "./contract.ts";
import { hashFile } from "./hash.ts";
import { type FoundImage, inspectImage } from "./inspect.ts";
import { defaultDiskImageLimits, type DiskImageLimits } from "./limit.ts";
import { checkQcow2 } from "./qemu-check.ts";
import { filenameOf, originOf, receive, receiveSmall, removeOldParts } from "./receive.ts";
import { type About, Shelf } from "./shelf.ts";
import { readSigned, verifySignature } from "./signature.ts";
import { compressedEndings, compressionOf, unpack } from "./unpack.ts";

export interface LibraryOptions {
  /** Durable state: the library is in `image/disk` beneath it. */
  readonly libDir: string;
  /** Disks that read from this file now, for people: `root of shop.files.1.0123abcd`. Asked whenever one is to go. */
  readonly holdersOf: (path: string) => Promise<readonly string[]>;
  readonly limits?: Partial<DiskImageLimits>;
}

/**
 * The library in files of this machine: see `shelf.ts` for where. An image comes in one direction: received as it is,
 * held against its checksum, unpacked, looked into, walked through by QEMU in confinement, and only then given its name.
 */
export class DiskLibrary implements DiskImages {
  readonly #shelf: Shelf;
  readonly #holdersOf: LibraryOptions["holdersOf"];
  readonly #limits: DiskImageLimits;
  /** The last of the works that are done one after another: by what is imported, and by what changes names. */
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Contents that are about to get a name. */
  readonly #arriving = new Set<Digest>();

  private constructor(shelf: Shelf, options: LibraryOptions) {
    this.#shelf = shelf;
    this.#holdersOf = options.holdersOf;
    this.#limits = { ...defaultDiskImageLimits, ...options.limits };
  }

  static async open(options: LibraryOptions): Promise<DiskLibrary> {
    return new DiskLibrary(await Shelf.open(join(options.libDir, "image", "disk")), options);
  }

  async import(request: DiskImport, call: Call): Promise<DiskImage> {
    throwIfCancelled(call);
    const name = request.name ?? withoutCompression(filenameOf(request.source));
    refuseName(name, request.name === undefined);
    if (request.source.kind === "url" && request.checksum === undefined) refuseUnverified(name, request);
    return await this.#receive(name, request, (digest) => this.#name(name, digest, request.replace), call);
  }

  async importNameless(request: Omit<DiskImport, "name" | "replace">, call: Call): Promise<DiskImage> {
    throwIfCancelled(call);
    const title = withoutCompression(filenameOf(request.source));
    return await this.#receive(title, { ...request, replace: true }, (digest) => this.#spare(digest, call), call);
  }

  async discard(digest: Digest, call: Call): Promise<void> {
    throwIfCancelled(call);
    await this.#inTurn(naming, async () => {
      const isNamed = [...(await this.#shelf.names()).values()].includes(digest);
      if (!isNamed && !this.#arriving.has(digest)) await this.#shelf.drop(digest, () => this.#isHeld(digest));
    });
  }

  /** `settle` gives what came what keeps it here. */
  async #receive(
    name: string,
    request: DiskImport,
    settle: (digest: Digest) => Promise<DiskImage>,
    call: Call,
  ): Promise<DiskImage> {
    const expected = await this.#expected(request, call);
    const key = expected === undefined ? randomBytes(8).toString("hex") : formatChecksum(expected.checksum);
    return await this.#inTurn(key, async () => {
      throwIfCancelled(call);
      const known = expected === undefined ? undefined : await this.#cameAs(expected.checksum);
      if (known !== undefined) await this.#vouch(known, expected?.verified);
      else if (expected !== undefined && !request.replace) await this.#refuseOther(name, expected.checksum);
      const digest = known ?? (await this.#bring(name, request, expected, call));
      try {
        return await settle(digest);
      } finally {
        this.#arriving.delete(digest);
      }
    });
  }

  async find(name: string, _call: Call): Promise<DiskImage | undefined> {
    const digest = await this.#shelf.named(name);
    // A removal that was interrupted may leave a name that means nothing.
    if (digest === undefined || (await this.#shelf.about(digest)) === undefined) return undefined;
    return await this.#show(digest);
  }

  async get(digest: Digest, _call: Call): Promise<DiskImage> {
    return await this.#show(digest);
  }

  async list(_call: Call): Promise<readonly DiskImage[]> {
    const names = await this.#shelf.names();
    const images: DiskImage[] = [];
    for (const digest of this.#shelf.digests()) {
      const about = await this.#shelf.about(digest);
      if (about !== undefined) images.push(this.#image(digest, about, names));
    }
    return images.sort((left, right) => (titleOf(left) < titleOf(right) ? -1 : 1));
  }

  async verify(name: string, call: Call): Promise<DiskImage> {
    const digest = await this.#shelf.named(name);
    const about = digest === undefined ? undefined : await this.#shelf.about(digest);
    if (digest === undefined || about === undefined) throw unknown(name);
    const path = this.#shelf.pathOf(digest);
    const { [0]: hex } = await this.#hash(path, ["sha256"], `verify ${name}`, about.fileBytes, call);
    const { damaged: _, ...sound } = about;
    const isSound = `sha256:${hex}` === digest;
    if (isSound !== (about.damaged === undefined)) {
      await this.#shelf.noteAbout(digest, isSound ? sound : { ...about, damaged: true });
    }
    if (!isSound) throw damaged(name, about);
    return await this.#show(digest);
  }

  async remove(name: string, call: Call): Promise<void> {
    throwIfCancelled(call);
    await this.#inTurn(naming, async () => {
      const digest = await this.#shelf.named(name);
      if (digest === undefined) return;
      const others = [...(await this.#shelf.names())].filter(([other, meant]) => other !== name && meant === digest);
      if (others.length === 0 && !(await this.#shelf.drop(digest, () => this.#isHeld(digest)))) {
        const holders = await this.#holdersOf(this.#shelf.pathOf(digest));
        throw new Fault(
          "precondition",
          `the image ${name} cannot be removed: disks read from it: ${holders.join(", ")}`,
          {
            hint: "remove those machines first",
          },
        );
      }
      await this.#shelf.removeName(name);
    });
  }

  async collect(
    keep: readonly Digest[],
    call: Call,
  ): Promise<{ readonly images: number; readonly freedBytes: number }> {
    let images = 0;
    let freedBytes = await removeOldParts(this.#shelf.partDir, call.clock.nowMs() - 7 * dayMs);
    for (const digest of this.#shelf.digests()) {
      throwIfCancelled(call);
      await this.#inTurn(naming, async () => {
        const names = await this.#shelf.names();
        const namelessMs = (await this.#shelf.about(digest))?.namelessMs ?? -Infinity;
        if (call.clock.nowMs() - namelessMs < dayMs) return;
        if (keep.includes(digest) || this.#arriving.has(digest) || [...names.values()].includes(digest)) return;
        const usedBytes = this.#shelf.usedBytes(digest);
        if (!(await this.#shelf.drop(digest, () => this.#isHeld(digest)))) return;
        images += 1;
        freedBytes += usedBytes;
      });
    }
    return { images, freedBytes };
  }

  /** What has to come, and how well that is known. */
  async #expected(request: DiskImport, call: Call): Promise<Expected | undefined> {
    const { checksum } = request;
    if (checksum === undefined) return undefined;
    if (checksum.kind === "digest") return { checksum: parseChecksum(checksum.digest), verified: "checksum" };
    const { list, signature } = checksum;
    const bytes = await receiveSmall(list, "the list of checksums", call);
    const proven = signature === undefined ? bytes : await provenList(bytes, signature, call);
    return {
      checksum: findChecksum(proven.toString("utf8"), filenameOf(request.source)),
      verified: signature === undefined ? "checksum" : "signature",
    };
  }

  /** After it the content is in the library, without a name. */
  async #bring(name: string, request: DiskImport, expected: Expected | undefined, call: Call): Promise<Digest> {
    const { source } = request;
    if (source.kind !== "url" || expected === undefined) {
      const received = this.#temporaryPath();
      try {
        return await this.#fetch(received, name, request, expected, call);
      } finally {
        await removeTree(received);
      }
    }
    const part = join(this.#shelf.partDir, shortHash(`${source.url} ${formatChecksum(expected.checksum)}`, 32));
    for (;;) {
      const goesOn = await fileExists(part);
      try {
        return await this.#fetch(part, name, request, expected, call);
      } catch (error) {
        // A lost connection can be gone on with. What turned out wrong cannot, and a full disk wants its room back.
        if (!isFault(error, "unavailable") && !isFault(error, "cancelled")) await removeTree(part);
        // The beginning may have been another's: once more, all of it.
        if (!goesOn || !isFault(error, "corrupt")) throw error;
      }
    }
  }

  /** By way of the file `received`, which is gone when all went well. */
  async #fetch(
    received: string,
    name: string,
    request: DiskImport,
    expected: Expected | undefined,
    call: Call,
  ): Promise<Digest> {
    const attempted = `import ${name}`;
    const unpacked = this.#temporaryPath();
    try {
      const receiving = {
        source: request.source,
        isChecked: expected !== undefined,
        limits: this.#limits,
        onProgress: progressOf(attempted, "receiving", call),
      };
      const sizeBytes = await receive(received, receiving, call);
      const came = await this.#compare(received, sizeBytes, expected, attempted, call);
      const compression = await compressionOf(received);
      if (compression !== undefined) {
        const packed = { path: received, sizeBytes, compression };
        await unpack(packed, unpacked, this.#limits, progressOf(attempted, "unpacking", call), call);
        await removeTree(received);
      }
      const file = compression === undefined ? received : unpacked;
      const shape = await this.#look(file, name, request, expected, call);
      const digest = compression === undefined ? came.digest : await this.#digestOf(unpacked, attempted, call);
      const known = await this.#shelf.about(digest);
      const about: About = {
        ...shape,
        verified: better(expected?.verified ?? "no", known?.verified ?? "no"),
        origin: originOf(request.source),
        importedMs: call.clock.nowMs(),
        came: [...new Set([...came.checksums, ...(known?.came ?? [])])],
      };
      this.#arriving.add(digest);
      await this.#shelf.keep(file, digest, about).catch((error: unknown) => {
        this.#arriving.delete(digest);
        throw error;
      });
      return digest;
    } catch (error) {
      throw hostFault(error, attempted);
    } finally {
      await removeTree(unpacked);
    }
  }

  /** Throws `corrupt` when something else came than was to come. */
  async #compare(
    path: string,
    sizeBytes: number,
    expected: Expected | undefined,
    attempted: string,
    call: Call,
  ): Promise<{ readonly digest: Digest; readonly checksums: readonly string[] }> {
    const algorithms = ["sha256", ...(expected?.checksum.algorithm === "sha512" ? (["sha512"] as const) : [])] as const;
    const hexes = await this.#hash(path, algorithms, attempted, sizeBytes, call);
    const checksums = algorithms.map((algorithm, index) => `${algorithm}:${hexes[index]}`);
    if (expected !== undefined && !checksums.includes(formatChecksum(expected.checksum))) {
      const found = checksums.find((one) => one.startsWith(expected.checksum.algorithm));
      throw new Fault(
        "corrupt",
        `${attempted}: its checksum is ${found}, and not ${formatChecksum(expected.checksum)}`,
        {
          hint: "compare the checksum with its publisher's; if it is right, what came is damaged or not the publisher's",
        },
      );
    }
    return { digest: `sha256:${hexes[0]}` as Digest, checksums };
  }

  async #look(
    file: string,
    name: string,
    request: DiskImport,
    expected: Expected | undefined,
    call: Call,
  ): Promise<FoundImage> {
    call.report({ topic: `import ${name}`, state: "checking" });
    const shape = await inspectImage(file, `the image ${name}`, this.#limits);
    if (shape.kind === "iso" && expected === undefined) refuseUnverified(name, request);
    // QEMU looks at it as nobody.
    await chmod(file, 0o444);
    if (shape.format === "qcow2") await checkQcow2(file, `the image ${name}`, call);
    return shape;
  }

  async #digestOf(path: string, attempted: string, call: Call): Promise<Digest> {
    const { [0]: hex } = await this.#hash(path, ["sha256"], attempted, undefined, call);
    return `sha256:${hex}` as Digest;
  }

  async #hash(
    path: string,
    algorithms: readonly Checksum["algorithm"][],
    topic: string,
    sizeBytes: number | undefined,
    call: Call,
  ): Promise<readonly string[]> {
    const report = progressOf(topic, "verifying", call);
    return await hashFile({ path, algorithms }, (done) => report(done, sizeBytes), call);
  }

  /** A sound content that came as these bytes before. */
  async #cameAs(checksum: Checksum): Promise<Digest | undefined> {
    for (const digest of this.#shelf.digests()) {
      const about = await this.#shelf.about(digest);
      if (about === undefined || !about.came.includes(formatChecksum(checksum))) continue;
      if (this.#damageOf(digest, about) === undefined) return digest;
    }
    return undefined;
  }

  /** The same bytes again, vouched for better than before. */
  async #vouch(digest: Digest, verified: Verification | undefined): Promise<void> {
    const about = await this.#shelf.about(digest);
    if (about === undefined || verified === undefined) return;
    const best = better(verified, about.verified);
    if (best !== about.verified) await this.#shelf.noteAbout(digest, { ...about, verified: best });
  }

  async #name(name: string, digest: Digest, replace: boolean): Promise<DiskImage> {
    return await this.#inTurn(naming, async () => {
      if (!replace) await this.#refuseTaken(name, digest);
      await this.#shelf.setName(name, digest);
      return await this.#show(digest);
    });
  }

  async #spare(digest: Digest, call: Call): Promise<DiskImage> {
    return await this.#inTurn(naming, async () => {
      const about = await this.#shelf.about(digest);
      if (about !== undefined) await this.#shelf.noteAbout(digest, { ...about, namelessMs: call.clock.nowMs() });
      return await this.#show(digest);
    });
  }

  async #refuseTaken(name: string, digest: Digest): Promise<void> {
    const taken = await this.#takenBy(name);
    if (taken !== undefined && taken.digest !== digest) throw alreadyTaken(name, taken.about);
  }

  /** Before gigabytes were fetched, where it is known that they will be another content. */
  async #refuseOther(name: string, checksum: Checksum): Promise<void> {
    const taken = await this.#takenBy(name);
    if (taken === undefined) return;
    const { came } = taken.about;
    const isComparable = came.some((one) => one.startsWith(`${checksum.algorithm}:`));
    if (isComparable && !came.includes(formatChecksum(checksum))) throw alreadyTaken(name, taken.about);
  }

  /** A name whose content is gone or broken is nobody's. */
  async #takenBy(name: string): Promise<{ readonly digest: Digest; readonly about: About } | undefined> {
    const digest = await this.#shelf.named(name);
    const about = digest === undefined ? undefined : await this.#shelf.about(digest);
    if (digest === undefined || about === undefined) return undefined;
    return this.#damageOf(digest, about) === undefined ? { digest, about } : undefined;
  }

  async #show(digest: Digest): Promise<DiskImage> {
    const about = await this.#shelf.about(digest);
    if (about === undefined) throw unknown(digest);
    const image = this.#image(digest, about, await this.#shelf.names());
    const fault = this.#damageOf(digest, about);
    if (fault !== undefined) throw damaged(titleOf(image), about);
    return image;
  }

  #image(digest: Digest, about: About, names: ReadonlyMap<string, Digest>): DiskImage {
    const { format, kind, virtualSizeBytes, verified, origin, importedMs } = about;
    return {
      digest,
      names: [...names].filter(([, meant]) => meant === digest).map(([name]) => name),
      path: this.#shelf.pathOf(digest),
      format,
      kind,
      virtualSizeBytes,
      verified,
      origin,
      importedMs,
      sizeBytes: this.#shelf.usedBytes(digest),
    };
  }

  /** What can be seen without reading it. */
  #damageOf(digest: Digest, about: About): string | undefined {
    if (about.damaged === true) return "its content changed";
    return this.#shelf.fileBytes(digest) === about.fileBytes ? undefined : "its file is gone or cut off";
  }

  async #isHeld(digest: Digest): Promise<boolean> {
    return (await this.#holdersOf(this.#shelf.pathOf(digest))).length > 0;
  }

  #temporaryPath(): string {
    return join(this.#shelf.temporaryDir, randomBytes(8).toString("hex"));
  }

  async #inTurn<Result>(key: string, work: () => Promise<Result>): Promise<Result> {
    const before = this.#turns.get(key);
    const mine = (before ?? Promise.resolve()).then(work, work);
    const ended = mine.catch(() => {});
    this.#turns.set(key, ended);
    try {
      return await mine;
    } finally {
      if (this.#turns.get(key) === ended) this.#turns.delete(key);
    }
  }
}

interface Expected {
  readonly checksum: Checksum;
  readonly verified: Verification;
}

/** What of the list its publisher signed. */
async function provenList(
  list: Buffer,
  { detached, keyringPath }: NonNullable<Extract<ImageChecksum, { kind: "list" }>["signature"]>,
  call: Call,
): Promise<Buffer> {
  if (detached === undefined) return await readSigned(list, keyringPath, call);
  await verifySignature(list, await receiveSmall(detached, "the signature", call), keyringPath, call);
  return list;
}

const dayMs = 24 * 3600_000;
const naming = "names";
/** From the least to the most. */
const trust: readonly Verification[] = ["no", "checksum", "signature"];

function better(left: Verification, right: Verification): Verification {
  return trust.indexOf(left) > trust.indexOf(right) ? left : right;
}

const progressStepBytes = 4 << 20;

function progressOf(topic: string, state: string, call: Call): (done: number, total?: number) => void {
  let reported = -progressStepBytes;
  return (done, total) => {
    if (done - reported < progressStepBytes) return;
    reported = done;
    const progress = { topic, state, done, unit: "bytes" } as const;
    call.report(total === undefined ? progress : { ...progress, total });
  };
}

function withoutCompression(filename: string): string {
  const ending = compressedEndings.find((known) => filename.endsWith(known));
  return ending === undefined ? filename : filename.slice(0, -ending.length);
}

function refuseName(name: string, isDerived: boolean): void {
  if (diskImageNamePattern.test(name)) return;
  throw new Fault("invalid", `an image cannot be called "${name}"`, {
    hint: isDerived ? "give it a name" : "letters, digits, dots, dashes and underscores, at most 128",
  });
}

function refuseUnverified(name: string, request: DiskImport): void {
  if (request.allowUnverified) return;
  throw new Fault("precondition", `nothing vouches for the image ${name}: no checksum was given`, {
    hint: "give the checksum that its publisher names, or allow an unverified image",
  });
}

function titleOf({ names, digest }: Pick<DiskImage, "names" | "digest">): string {
  return names[0] ?? digest;
}

function unknown(what: string): Fault {
  return new Fault("not-found", `there is no disk image ${what}`, { hint: "see croft image ls, or import it" });
}

function damaged(title: string, about: About): Fault {
  return new Fault("corrupt", `the disk image ${title} is not what was imported any more`, {
    hint: `import it again from ${about.origin}; disks that read from it may be damaged too`,
  });
}

function alreadyTaken(name: string, about: About): Fault {
  return new Fault("already-exists", `there is another image ${name} already, from ${about.origin}`, {
    hint: "give it another name, or say that it replaces that one",
  });
}
