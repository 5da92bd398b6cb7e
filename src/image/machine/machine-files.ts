import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, pack, type Header, type Pack } from "tar-stream";
import { throwIfCancelled, type Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import type { Home } from "../../base/home.ts";
import { namePattern } from "../../base/id.ts";
import { hostFault } from "../../host/errno.ts";
import { firmwarePart, type MachineFiles, type PackedDisk } from "./contract.ts";

/** What says what the machine is, the first entry of the tar. */
const headName = "machine.json";
const maxHeadBytes = 2 ** 20;
const maxDisks = 64;

type Entry = Readable & { readonly header: Header };

interface Head {
  readonly croftMachine: 1;
  readonly description: unknown;
  readonly disks: readonly { readonly name: string; readonly sizeBytes: number; readonly digest: string }[];
}

/** Disks are put down beneath the home before they are sent, so that their sizes and digests can come first. */
export class TarMachineFiles implements MachineFiles {
  readonly #directory: string;

  /** `directory`: where it puts down disks for a while. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Deletes what a daemon that died was about to send. */
  static async open(home: Home): Promise<TarMachineFiles> {
    const directory = join(home.libDir, "machine-export");
    await rm(directory, { recursive: true, force: true });
    return new TarMachineFiles(directory);
  }

  async *pack(description: object, fill: Parameters<MachineFiles["pack"]>[1], call: Call): AsyncGenerator<Uint8Array> {
    const directory = join(this.#directory, crypto.randomUUID());
    await mkdir(directory, { recursive: true, mode: 0o711 });
    try {
      const disks = await measure(await fill(directory, call), call);
      const told = disks.map(({ name, sizeBytes, digest }) => ({ name, sizeBytes, digest }));
      const head = { croftMachine: 1, description, disks: told } satisfies Head;
      const packer = pack();
      const written = writeAll(packer, head, disks).catch((error: unknown) => packer.destroy(error as Error));
      try {
        for await (const chunk of packer as AsyncIterable<Uint8Array>) {
          throwIfCancelled(call);
          yield chunk;
        }
      } finally {
        packer.destroy();
        await written;
      }
    } catch (error) {
      throw hostFault(error, "export a machine");
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async unpack(
    file: AsyncIterable<Uint8Array>,
    take: Parameters<MachineFiles["unpack"]>[1],
    call: Call,
  ): Promise<unknown> {
    const extractor = extract();
    const fed = pipeline(Readable.from(file, { objectMode: false }), extractor, { signal: call.signal });
    // It is waited for below, and must not be taken for a failure that nobody hears of before that.
    fed.catch(() => {});
    try {
      const head = await readEntries(extractor as unknown as AsyncIterable<Entry>, take);
      await fed;
      return head.description;
    } catch (error) {
      extractor.destroy();
      await fed.catch(() => {});
      throwIfCancelled(call);
      if (isFault(error)) throw error;
      throw new Fault("corrupt", "this is not the file of a machine, or it is cut off", {
        hint: "make one with croft vm export",
        cause: error,
      });
    }
  }
}

async function measure(
  disks: readonly { readonly name: string; readonly path: string }[],
  call: Call,
): Promise<readonly { name: string; path: string; sizeBytes: number; digest: string }[]> {
  const measured = [];
  for (const { name, path } of disks) {
    call.report({ topic: `disk ${name}`, state: "reading" });
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) {
      throwIfCancelled(call);
      hash.update(chunk as Uint8Array);
    }
    measured.push({ name, path, sizeBytes: (await stat(path)).size, digest: `sha256:${hash.digest("hex")}` });
  }
  return measured;
}

async function writeAll(packer: Pack, head: Head, disks: readonly { name: string; path: string; sizeBytes: number }[]) {
  const text = `${JSON.stringify(head, undefined, 2)}\n`;
  await new Promise<void>((resolve, reject) => {
    packer.entry({ name: headName, mode: 0o644 }, text, (error) => (error ? reject(error) : resolve()));
  });
  for (const { name, path, sizeBytes } of disks) {
    const entry = packer.entry({ name: fileOf(name), size: sizeBytes, mode: 0o644 });
    await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), entry);
  }
  packer.finalize();
}

async function readEntries(
  entries: AsyncIterable<Entry>,
  take: (disk: PackedDisk, description: unknown) => Promise<void>,
): Promise<Head> {
  let head: Head | undefined;
  let next = 0;
  for await (const entry of entries) {
    const { name, size } = entry.header;
    if (head === undefined) {
      if (name !== headName || size > maxHeadBytes) throw new Fault("corrupt", `it does not begin with ${headName}`);
      head = readHead(Buffer.concat(await Array.fromAsync(entry as AsyncIterable<Uint8Array>)).toString("utf8"));
      continue;
    }
    const disk = head.disks[next];
    if (disk === undefined || name !== fileOf(disk.name) || size !== disk.sizeBytes) {
      throw new Fault("corrupt", `${name} is not what ${headName} announces`);
    }
    next += 1;
    await take({ ...disk, bytes: entry as AsyncIterable<Uint8Array> }, head.description);
    entry.resume();
  }
  if (head === undefined) throw new Fault("corrupt", "the file is empty");
  if (next < head.disks.length) throw new Fault("corrupt", `disk ${head.disks[next]?.name} is missing from it`);
  return head;
}

/** The file may come from anybody: nothing in it is believed before it was looked at. */
function readHead(text: string): Head {
  const head: unknown = JSON.parse(text);
  if (!isHead(head)) {
    throw new Fault("corrupt", `${headName} is not that of a machine that this release knows`, {
      hint: "make one with croft vm export",
    });
  }
  return head;
}

function isHead(value: unknown): value is Head {
  if (typeof value !== "object" || value === null || !("disks" in value) || !Array.isArray(value.disks)) return false;
  if (!("croftMachine" in value) || value.croftMachine !== 1 || value.disks.length > maxDisks) return false;
  return value.disks.every(
    (disk: Record<string, unknown>) =>
      typeof disk["name"] === "string" &&
      (namePattern.test(disk["name"]) || disk["name"] === firmwarePart) &&
      Number.isSafeInteger(disk["sizeBytes"]) &&
      typeof disk["digest"] === "string" &&
      /^sha256:[0-9a-f]{64}$/.test(disk["digest"]),
  );
}

function fileOf(disk: string): string {
  return `${disk}.qcow2`;
}
