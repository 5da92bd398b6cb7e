import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Digest } from "../../base/id.ts";
import type { Recipe } from "../contract.ts";
import type { Content, Lease, StoredImage } from "../content/content.ts";
import { layerPath } from "../content/layout.ts";
import type { LayerStore, StoredLayer } from "../layer-store.ts";
import { type ConfigDocument, mediaType, writeManifest } from "../manifest.ts";
import { hostPlatform } from "../platform.ts";
import { withBaseTree } from "./base-tree.ts";
import { debianSuite, writeDebianTar } from "./debian.ts";
import { writeFileTar } from "./file-layer.ts";
import { checkPackages, writePackageTar } from "./package.ts";
import type { StepCache } from "./step.ts";

/** What a build begins with: layers, their media types, and the configuration that it inherits. */
interface Base {
  readonly layers: readonly (StoredLayer & { readonly mediaType: string })[];
  readonly document: ConfigDocument | undefined;
}

/**
 * Builds images: a base, Debian packages, files, a command. One layer for what comes from packages and one for the
 * files, each remembered by its input, so a changed page costs a small layer and an unchanged recipe nothing.
 *
 * Nothing of the time or the machine goes into the result: equal layers and equal settings are the same image.
 */
export class Builder {
  readonly #content: Content;
  readonly #layers: LayerStore;
  readonly #steps: StepCache;
  /** Finds an image by name, here or at its registry. */
  readonly #obtain: (reference: string, lease: Lease, call: Call) => Promise<StoredImage>;
  readonly #findLocal: (reference: string) => StoredImage | undefined;

  constructor(
    content: Content,
    layers: LayerStore,
    steps: StepCache,
    findLocal: (reference: string) => StoredImage | undefined,
    obtain: (reference: string, lease: Lease, call: Call) => Promise<StoredImage>,
  ) {
    this.#content = content;
    this.#layers = layers;
    this.#steps = steps;
    this.#findLocal = findLocal;
    this.#obtain = obtain;
  }

  /** The image of this recipe, complete in the store; its name is the caller's matter. */
  async build(recipe: Recipe, lease: Lease, call: Call): Promise<StoredImage> {
    checkPackages(recipe.packages);
    const base = await this.#base(recipe, lease, call);
    const layers = [...base.layers];
    if (recipe.files.length > 0) {
      layers.push({ ...(await this.#fileLayer(recipe, base, lease, call)), mediaType: mediaType.layer });
    }
    const config = Buffer.from(JSON.stringify(configuration(recipe, base, layers)));
    const configDigest = await this.#content.putBlob(config);
    lease.hold(configDigest);
    const { bytes, digest } = writeManifest(
      { mediaType: mediaType.config, digest: configDigest, sizeBytes: config.length, urls: [] },
      layers.map((layer) => ({ ...layer, urls: [] })),
    );
    lease.hold(digest);
    return await this.#content.commit(bytes);
  }

  async #base(recipe: Recipe, lease: Lease, call: Call): Promise<Base> {
    const { from, packages } = recipe;
    if (from === "scratch") {
      if (packages.length === 0) return { layers: [], document: undefined };
      const write = (workDir: string, tarPath: string): Promise<void> =>
        writePackageTar(packages, workDir, tarPath, call);
      return await this.#packageBase({ from, packages }, write, recipe.fresh, lease, call);
    }
    const suite = debianSuite(from);
    // A pulled debian:bookworm is what its name says; packages, however, are installed where the system is made.
    const isHere = packages.length === 0 && this.#findLocal(from) !== undefined;
    if (suite !== undefined && !isHere) {
      const sorted = [...new Set(packages)].toSorted();
      const write = (workDir: string, tarPath: string): Promise<void> =>
        writeDebianTar(suite, sorted, workDir, tarPath, call);
      return await this.#packageBase({ from, packages: sorted }, write, recipe.fresh, lease, call);
    }
    if (packages.length > 0) {
      throw new Fault("unsupported", `packages cannot be installed into ${from}`, {
        hint: 'begin from = "debian:bookworm" (or another Debian suite) with these packages, or from = "scratch"',
      });
    }
    const image = await this.#obtain(from, lease, call);
    const layers = image.manifest.layers.map((layer, position) => {
      const diffId = image.document.diffIds[position];
      if (diffId === undefined) throw new Fault("bug", `image ${image.digest} has more layers than diff ids`);
      if (this.#content.blobSize(layer.digest) !== layer.sizeBytes) {
        throw new Fault("corrupt", `${from}: its layer ${layer.digest} is damaged on this machine's disk`, {
          hint: "pull, load or build that image again",
        });
      }
      return { digest: layer.digest, diffId, sizeBytes: layer.sizeBytes, mediaType: layer.mediaType };
    });
    return { layers, document: image.document };
  }

  async #packageBase(
    input: { readonly from: string; readonly packages: readonly string[] },
    write: (workDir: string, tarPath: string) => Promise<void>,
    fresh: boolean,
    lease: Lease,
    call: Call,
  ): Promise<Base> {
    const key = this.#steps.key({ kind: "packages", architecture: hostPlatform().architecture, ...input });
    const layer = await this.#step(key, write, fresh, lease, call);
    return { layers: [{ ...layer, mediaType: mediaType.layer }], document: undefined };
  }

  async #fileLayer(recipe: Recipe, base: Base, lease: Lease, call: Call): Promise<StoredLayer> {
    const key = this.#steps.key({
      kind: "files",
      base: base.layers.map(({ diffId }) => diffId),
      files: recipe.files.map(({ destination, digest }) => ({ destination, digest })),
    });
    const layerPaths = base.layers.map(({ diffId }) => layerPath(this.#content.layout, diffId));
    const write = (workDir: string, tarPath: string): Promise<void> =>
      withBaseTree(layerPaths, workDir, (tree) => writeFileTar(recipe.files, tree, tarPath, call));
    return await this.#step(key, write, false, lease, call);
  }

  /** The layer of a step: remembered, or made by `write` and remembered. */
  async #step(
    key: Digest,
    write: (workDir: string, tarPath: string) => Promise<void>,
    fresh: boolean,
    lease: Lease,
    call: Call,
  ): Promise<StoredLayer> {
    const known = fresh ? undefined : await this.#steps.find(key);
    if (known !== undefined) {
      lease.hold(known.digest, known.diffId);
      return known;
    }
    const work = await this.#content.workspace();
    try {
      await mkdir(join(work.path, "work"));
      const tarPath = join(work.path, "layer.tar");
      await write(join(work.path, "work"), tarPath);
      const layer = await this.#layers.add({ kind: "file", path: tarPath }, {}, lease.hold, call);
      await this.#steps.remember(key, layer);
      return layer;
    } finally {
      await work.release();
    }
  }
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** The OCI configuration: what the recipe says, else what the base said. A new entrypoint drops the old command. */
function configuration(recipe: Recipe, base: Base, layers: readonly StoredLayer[]): object {
  const inherited = base.document?.config;
  const platform = base.document?.platform ?? hostPlatform();
  const env = { PATH: defaultPath, ...inherited?.env, ...recipe.env };
  const entrypoint = recipe.entrypoint ?? inherited?.entrypoint ?? [];
  const command = recipe.command ?? (recipe.entrypoint === undefined ? (inherited?.command ?? []) : []);
  const user = recipe.user ?? inherited?.user ?? "";
  const workdir = recipe.workdir ?? inherited?.workdir ?? "";
  const volumes = inherited?.volumes ?? [];
  const exposedPorts = inherited?.exposedPorts ?? [];
  return {
    ...platform,
    config: {
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      ...(entrypoint.length === 0 ? {} : { Entrypoint: entrypoint }),
      ...(command.length === 0 ? {} : { Cmd: command }),
      ...(user === "" ? {} : { User: user }),
      ...(workdir === "" ? {} : { WorkingDir: workdir }),
      ...(volumes.length === 0 ? {} : { Volumes: emptyMembers(volumes) }),
      ...(exposedPorts.length === 0 ? {} : { ExposedPorts: emptyMembers(exposedPorts) }),
      ...(Object.keys(inherited?.labels ?? {}).length === 0 ? {} : { Labels: inherited?.labels }),
      ...(inherited?.stopSignal === undefined ? {} : { StopSignal: inherited.stopSignal }),
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  };
}

/** Sets are objects with empty members in an OCI configuration. */
function emptyMembers(names: readonly string[]): Readonly<Record<string, object>> {
  return Object.fromEntries(names.map((name) => [name, {}]));
}
