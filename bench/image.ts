import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { type Pack, pack } from "tar-stream";

/** A layer as it travels, and as it is once unpacked. */
export interface Layer {
  readonly tar: Uint8Array;
  readonly gzip: Uint8Array;
}

/** An image's config, in the form that every client reads. */
export function imageConfig(layers: readonly Uint8Array[]): string {
  return JSON.stringify({
    architecture: { x64: "amd64", arm64: "arm64" }[process.arch as string] ?? process.arch,
    os: "linux",
    config: { Cmd: ["/bin/busybox"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: layers.map(digestOf) },
  });
}

export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** Writes a docker archive of an image that holds busybox and nothing else: the same one for every contender. */
export async function writeBusyboxArchive(path: string, reference: string): Promise<void> {
  const layer = await tarOf((tar) => {
    tar.entry({ name: "bin/", type: "directory", mode: 0o755 });
    tar.entry({ name: "bin/busybox", mode: 0o755 }, readFileSync("/bin/busybox"));
  });
  const config = imageConfig([layer]);
  const archive = await tarOf((tar) => {
    tar.entry({ name: "layer.tar" }, Buffer.from(layer));
    tar.entry({ name: "config.json" }, config);
    const manifest = [{ Config: "config.json", RepoTags: [reference], Layers: ["layer.tar"] }];
    tar.entry({ name: "manifest.json" }, JSON.stringify(manifest));
  });
  writeFileSync(path, archive);
}

/**
 * The layers of an image like those that people run: 10,800 files in five layers, 253 MiB, which gzip makes a third of.
 * The same bytes each time.
 */
export async function* largeLayers(): AsyncGenerator<Layer> {
  const random = new Noise(20_240_601);
  for (const [at, { files, sizeBytes }] of layerShapes.entries()) {
    const tar = await tarOf((tar) => {
      for (let directory = 0; directory < files / filesPerDirectory; directory += 1) {
        const parent = `usr/share/part-${at}/${directory.toString(36).padStart(3, "0")}`;
        tar.entry({ name: `${parent}/`, type: "directory", mode: 0o755 });
        for (let file = 0; file < filesPerDirectory; file += 1) {
          // Most files are small and a few are large, as in a distribution.
          const share = (file % 16 === 0 ? 8.5 : 0.5) * (sizeBytes / files);
          tar.entry({ name: `${parent}/file-${file}.dat`, mode: 0o644 }, random.content(Math.round(share)));
        }
      }
    });
    yield { tar, gzip: gzipSync(tar, { level: 6 }) };
  }
}

const filesPerDirectory = 48;
const layerShapes = [
  { files: 4800, sizeBytes: 110 * 2 ** 20 },
  { files: 3600, sizeBytes: 80 * 2 ** 20 },
  { files: 1440, sizeBytes: 40 * 2 ** 20 },
  { files: 720, sizeBytes: 15 * 2 ** 20 },
  { files: 240, sizeBytes: 8 * 2 ** 20 },
];

/** Pseudo-random bytes of which gzip can save two thirds, as it can of programs and texts. */
class Noise {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  content(sizeBytes: number): Buffer {
    const bytes = Buffer.alloc(sizeBytes);
    let at = 0;
    while (at < sizeBytes) {
      // A run that says something new, then one that was said before.
      const fresh = Math.min(sizeBytes, at + 8 + (this.#next() % 24));
      for (; at < fresh; at += 1) bytes[at] = this.#next();
      const length = Math.min(sizeBytes - at, 24 + (this.#next() % 40));
      const back = 1 + (this.#next() % 8192);
      if (back <= at) bytes.copy(bytes, at, at - back, Math.min(at, at - back + length));
      at += length;
    }
    return bytes;
  }

  #next(): number {
    // xorshift32.
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
}

async function tarOf(fill: (tar: Pack) => void): Promise<Uint8Array> {
  const tar = pack();
  fill(tar);
  tar.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of tar as AsyncIterable<Uint8Array>) chunks.push(chunk);
  return Buffer.concat(chunks);
}
