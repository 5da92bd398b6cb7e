import type { Call, Clock } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import type { Home } from "../base/home.ts";
import { type Digest, isDigest } from "../base/id.ts";
import { listMounts, unmount } from "../host/mount.ts";
import { loadArchive } from "./archive/load.ts";
import { saveArchive } from "./archive/save.ts";
import { Builder } from "./build/builder.ts";
import { StepCache } from "./build/step.ts";
import { Content, type Lease, type StoredImage } from "./content/content.ts";
import { layoutBeneath } from "./content/layout.ts";
import type { Credentials, Image, Images, PullOptions, Recipe, Registries } from "./contract.ts";
import { LayerStore } from "./layer-store.ts";
import { LayerWorkers } from "./layer/layer-workers.ts";
import { parsePlatform } from "./platform.ts";
import { type Reference, formatReference, isLocalOnly, parseReference } from "./reference.ts";
import { type Access, RepositoryClient } from "./registry/client.ts";
import { CredentialStore } from "./registry/credential.ts";
import { pullImage } from "./registry/pull.ts";
import { pushImage } from "./registry/push.ts";
import { SharedWork } from "./shared-work.ts";

/** The store of one home. One process has it open; `close` ends its worker threads. */
export class ImageStore implements Images, Registries, AsyncDisposable {
  readonly #content: Content;
  readonly #workers: LayerWorkers;
  readonly #layers: LayerStore;
  readonly #steps: StepCache;
  readonly #builder: Builder;
  readonly #credentials: CredentialStore;
  readonly #shared = new SharedWork<{ readonly value: StoredImage; readonly own: Lease }>();

  private constructor(content: Content, clock: Clock, credentials: CredentialStore) {
    this.#content = content;
    this.#credentials = credentials;
    this.#workers = new LayerWorkers(clock);
    this.#layers = new LayerStore(content, this.#workers);
    this.#steps = new StepCache(content);
    this.#builder = new Builder(
      content,
      this.#layers,
      this.#steps,
      (reference) => this.#local(reference),
      async (reference, lease, call) => this.#local(reference) ?? (await this.#pull(reference, {}, lease, call)),
    );
  }

  /** Opens the store beneath `home.libDir`, making it when absent; leftovers of interrupted work are removed. */
  static async open(home: Home, clock: Clock, credentials = new CredentialStore(home.etcDir)): Promise<ImageStore> {
    // A build that was killed while it looked into its base.
    const { temporaryDir } = layoutBeneath(home.libDir);
    for (const mount of listMounts(temporaryDir).toReversed()) await unmount(mount.target, { detach: true });
    return new ImageStore(await Content.open(home.libDir), clock, credentials);
  }

  async close(): Promise<void> {
    await this.#workers.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  find(reference: string, _call: Call): Promise<Image | undefined> {
    const stored = this.#local(reference);
    return Promise.resolve(stored === undefined ? undefined : this.#content.show(stored));
  }

  async get(digest: Digest, _call: Call): Promise<Image> {
    const stored = this.#content.find(digest);
    if (stored === undefined) throw notHere(digest);
    return this.#content.show(stored);
  }

  list(_call: Call): Promise<readonly Image[]> {
    return Promise.resolve(this.#content.images().map((stored) => this.#content.show(stored)));
  }

  async pull(reference: string, options: PullOptions, call: Call): Promise<Image> {
    using lease = this.#content.lease();
    const parsed = parseReference(reference);
    const stored = await this.#pull(reference, options, lease, call);
    await this.#content.setName(formatReference(parsed), stored.digest);
    return this.#content.show(stored);
  }

  async push(reference: string, options: { readonly credentials?: Credentials }, call: Call): Promise<Digest> {
    const parsed = parseReference(reference);
    refuseLocal(parsed, "sent to");
    const stored = this.#require(reference);
    using lease = this.#content.lease();
    lease.hold(stored.digest);
    const client = this.#client(parsed, "pull,push", options.credentials, call);
    return await pushImage(stored, parsed, client, this.#content, call);
  }

  async build(recipe: Recipe, call: Call): Promise<Image> {
    const reference = formatReference(parseReference(recipe.reference));
    using lease = this.#content.lease();
    const { from, packages, files, command, entrypoint, env, user, workdir, fresh } = recipe;
    // The same input twice at once is built once; where the files lie for the moment does not count.
    const inputs = files.map(({ destination, digest }) => [destination, digest]);
    const key = JSON.stringify(["build", from, packages, inputs, command, entrypoint, env, user, workdir, fresh]);
    const stored = await this.#together(key, lease, call, (own, call) => this.#builder.build(recipe, own, call));
    await this.#content.setName(reference, stored.digest);
    return this.#content.show(stored);
  }

  async load(archive: AsyncIterable<Uint8Array>, call: Call): Promise<readonly Image[]> {
    const { value: loaded, own } = await this.#leased((own) =>
      loadArchive(archive, this.#content, this.#layers, own, call),
    );
    using _ = own;
    for (const { references, image } of loaded) {
      for (const reference of references) await this.#content.setName(formatReference(reference), image.digest);
    }
    return loaded.map(({ image }) => this.#content.show(image));
  }

  async *save(references: readonly string[], format: "oci" | "docker", call: Call): AsyncGenerator<Uint8Array> {
    using lease = this.#content.lease();
    const images = references.map((reference) => {
      const image = this.#require(reference);
      lease.hold(image.digest);
      // An image asked for by its digest is saved without a name.
      return { image, reference: isDigest(reference) ? undefined : parseReference(reference) };
    });
    yield* saveArchive(images, format, this.#content, call);
  }

  async tag(source: string, reference: string, _call: Call): Promise<void> {
    const parsed = parseReference(reference);
    const { digest } = this.#require(source);
    if (parsed.digest !== undefined && parsed.digest !== digest) {
      throw new Fault("invalid", `${reference} names another digest than image ${digest} has`);
    }
    await this.#content.setName(formatReference(parsed), digest);
  }

  async remove(reference: string, _call: Call): Promise<void> {
    if (isDigest(reference)) {
      if (this.#content.find(reference) === undefined) throw notHere(reference);
      for (const name of this.#content.namesOf(reference)) await this.#content.removeName(name);
      return;
    }
    const name = formatReference(parseReference(reference));
    if (this.#content.named(name) === undefined) throw notHere(reference);
    await this.#content.removeName(name);
  }

  async collect(keep: readonly Digest[], _call: Call): Promise<{ images: number; freedBytes: number }> {
    const collected = await this.#content.collect(new Set(keep));
    await this.#steps.collect();
    return collected;
  }

  async login(registry: string, credentials: Credentials, call: Call): Promise<void> {
    const domain = registryDomain(registry);
    const client = new RepositoryClient(domain, "", "pull", () => Promise.resolve(credentials));
    try {
      await client.check(call);
    } catch (error) {
      if (!isFault(error, "unauthenticated")) throw error;
      throw new Fault("unauthenticated", `registry ${domain} does not know this user name and password`, {
        cause: error,
      });
    }
    await this.#credentials.save(domain, credentials);
  }

  async logout(registry: string, _call: Call): Promise<void> {
    await this.#credentials.forget(registryDomain(registry));
  }

  /** From the registry; without giving it its name. Who asks for the same meanwhile shares the work. */
  async #pull(reference: string, options: PullOptions, lease: Lease, call: Call): Promise<StoredImage> {
    const parsed = parseReference(reference);
    refuseLocal(parsed, "fetched from");
    const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
    const key = JSON.stringify(["pull", formatReference(parsed), platform, options.credentials]);
    return await this.#together(key, lease, call, (own, call) => {
      const client = this.#client(parsed, "pull", options.credentials, call);
      return pullImage(parsed, platform, client, this.#content, this.#layers, own, call);
    });
  }

  /** Work that is done once for all who ask for it at the same time. Its result stays held by `lease`. */
  async #together(
    key: string,
    lease: Lease,
    call: Call,
    work: (own: Lease, call: Call) => Promise<StoredImage>,
  ): Promise<StoredImage> {
    const { value: stored, own } = await this.#shared.join(key, call, (call) => this.#leased((own) => work(own, call)));
    // The work's lease ends only when the first of the callers holds the image, so there is no moment without one.
    lease.hold(stored.digest);
    own[Symbol.dispose]();
    return stored;
  }

  /**
   * Work with a lease of its own, which the caller ends. When the work fails for want of space, what it had finished by
   * then is deleted too, as there is no room to keep it for another try.
   */
  async #leased<Value>(work: (own: Lease) => Promise<Value>): Promise<{ readonly value: Value; readonly own: Lease }> {
    const own = this.#content.lease();
    try {
      return { value: await work(own), own };
    } catch (error) {
      own[Symbol.dispose]();
      if (isFault(error, "exhausted")) {
        await this.#content.collect(new Set(this.#content.images().map(({ digest }) => digest)));
      }
      throw error;
    }
  }

  #client(reference: Reference, access: Access, given: Credentials | undefined, call: Call): RepositoryClient {
    const credentials = (): Promise<Credentials | undefined> =>
      given === undefined ? this.#credentials.find(reference.domain, call) : Promise.resolve(given);
    return new RepositoryClient(reference.domain, reference.path, access, credentials);
  }

  /** The image a name or digest means here. */
  #local(reference: string): StoredImage | undefined {
    if (isDigest(reference)) return this.#content.find(reference);
    const parsed = parseReference(reference);
    const named = this.#content.named(formatReference(parsed)) ?? parsed.digest;
    return named === undefined ? undefined : this.#content.find(named);
  }

  #require(reference: string): StoredImage {
    const stored = this.#local(reference);
    if (stored === undefined) throw notHere(reference);
    return stored;
  }
}

function notHere(reference: string): Fault {
  return new Fault("not-found", `image ${reference} is not here`, { hint: "list what is here: croft image ls" });
}

function refuseLocal(reference: Reference, what: string): void {
  if (!isLocalOnly(reference)) return;
  throw new Fault("not-found", `${formatReference(reference)} is an image of this machine, not ${what} a registry`, {
    hint: "build it here, or give it a name with a registry: croft image tag",
  });
}

/** `docker.io`, `localhost:5000`: as in a reference, whose grammar it must keep. */
function registryDomain(registry: string): string {
  const name = registry.replace(/^https:\/\//, "").replace(/\/(?:v[12]\/?)?$/, "");
  return parseReference(`${name}/x`).domain === name || name === "index.docker.io"
    ? parseReference(`${name}/x`).domain
    : unknownRegistry(registry);
}

function unknownRegistry(registry: string): never {
  throw new Fault("invalid", `"${registry.slice(0, 100)}" is not the address of a registry`, {
    hint: "write it as in the names of its images: docker.io, localhost:5000",
  });
}
