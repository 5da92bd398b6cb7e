import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../../base/call.ts";
import type { Home } from "../../../base/home.ts";
import { namesIn } from "../../monitor/record.ts";
import { type Initramfs, initramfsSignature, prepareInitramfs } from "./initramfs.ts";
import { findKernel, type GuestKernel, prepareKernel } from "./kernel.ts";

/** A kernel and an initramfs, ready for QEMU. */
export interface Kit {
  readonly kernel: GuestKernel;
  readonly initramfs: Initramfs;
}

/** Kernels and initramfs of guests, made when they are first needed and again when a part of them was updated. */
export class Kits {
  readonly #directory: string;
  readonly #initramfs = new Map<string, { readonly signature: string; readonly made: Promise<Initramfs> }>();
  readonly #kernels = new Map<string, Promise<GuestKernel>>();

  constructor(home: Home) {
    this.#directory = join(home.libDir, "guest");
    clearUnfinished(this.#directory);
  }

  /** With the distribution's newest kernel unless another is named. `unsupported` when a part of it is not installed. */
  async get(kernelPath: string | undefined, call: Call): Promise<Kit> {
    const path = kernelPath ?? findKernel();
    const kernel = await this.#kernel(path, call);
    return { kernel, initramfs: await this.#initramfsFor(kernel.version, call) };
  }

  /** Several who need it at once wait for the same. It costs nothing when it is there. */
  async #kernel(path: string, call: Call): Promise<GuestKernel> {
    const working = this.#kernels.get(path);
    if (working !== undefined) return await working;
    const made = prepareKernel(path, this.#directory, call);
    this.#kernels.set(path, made);
    try {
      return await made;
    } finally {
      this.#kernels.delete(path);
    }
  }

  async #initramfsFor(version: string, call: Call): Promise<Initramfs> {
    const signature = initramfsSignature(version);
    const known = this.#initramfs.get(version);
    if (known?.signature === signature) return await known.made;
    const made = prepareInitramfs(version, this.#directory, call);
    this.#initramfs.set(version, { signature, made });
    made.catch(() => this.#initramfs.delete(version));
    return await made;
  }
}

/** What somebody left who was killed while writing; what is being written is left alone. */
function clearUnfinished(directory: string): void {
  for (const name of namesIn(directory)) {
    const writer = /\.new-([0-9]+)$/.exec(name)?.[1];
    if (writer !== undefined && !existsSync(`/proc/${writer}`)) rmSync(join(directory, name), { force: true });
  }
}
