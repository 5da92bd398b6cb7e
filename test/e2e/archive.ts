import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { pack, type Header } from "tar-stream";

/** A member of a layer: a tar header, and its content. */
export type Entry = Partial<Header> & { readonly name: string } & { readonly content?: string | Buffer };

/** A layer that holds busybox and whatever else. Later entries come later in the tar. */
export function layerOf(entries: readonly Entry[]): Promise<Buffer> {
  return tarOf([
    { name: "bin/", type: "directory", mode: 0o755 },
    { name: "bin/busybox", mode: 0o755, content: readFileSync("/bin/busybox") },
    { name: "bin/sh", type: "symlink", linkname: "busybox" },
    ...entries,
  ]);
}

export async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack();
  const whole = collected(tar);
  for (const { content, ...header } of entries) tar.entry(header, content ?? "");
  tar.finalize();
  return await whole;
}

/** A docker archive of one image, `name`, with these layers; `config` is merged into the image's own. */
export async function archiveOf(
  name: string,
  layers: readonly Buffer[],
  config: { readonly user?: string; readonly workdir?: string; readonly diffIds?: readonly string[] } = {},
): Promise<Buffer> {
  const image = JSON.stringify({
    architecture: process.arch === "arm64" ? "arm64" : "amd64",
    os: "linux",
    config: { Cmd: ["/bin/busybox", "sleep", "1000000"], User: config.user ?? "", WorkingDir: config.workdir ?? "" },
    rootfs: { type: "layers", diff_ids: config.diffIds ?? layers.map((layer) => digestOf(layer)) },
    history: [],
  });
  const manifest = [{ Config: "config.json", RepoTags: [name], Layers: layers.map((_, index) => `${index}.tar`) }];
  return await tarOf([
    { name: "manifest.json", content: JSON.stringify(manifest) },
    { name: "config.json", content: image },
    ...layers.map((content, index) => ({ name: `${index}.tar`, content })),
  ]);
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

async function collected(tar: ReturnType<typeof pack>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
