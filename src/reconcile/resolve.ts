import type { Call, Progress } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { canonicalJson, type Digest } from "../base/id.ts";
import { formatSize } from "../base/unit.ts";
import type { Image, Recipe } from "../image/contract.ts";
import type { DiskImage, DiskImages } from "../image/disk/contract.ts";
import type { DiskSection, Generation, ImageSection, StackSpec } from "../stack/model.ts";
import type { Submission } from "./contract.ts";
import type { Parts } from "./parts.ts";

/** The name an image gets that a stack file builds. It is never looked for in a registry. */
export function builtReference(stack: string, name: string): string {
  return `localhost/${stack}/${name}:latest`;
}

/**
 * Pins everything that could move: pulls or builds what is missing, keeps what the client sent. What comes out means the
 * same for ever, so that going back to it really goes back. `before`: the current generation, whose images are kept where
 * `resolvePreview` says that they are, so that what was planned is what is done.
 */
export async function resolve(
  submission: Submission,
  options: { readonly pull: boolean; readonly build: boolean },
  before: Generation | undefined,
  parts: Parts,
  call: Call,
): Promise<Generation> {
  const { spec, files } = submission;
  const [images, diskImages, secrets] = await Promise.all([
    resolveImages(submission, options, before, parts, call),
    resolveDiskImages(spec, parts, call),
    resolveSecrets(submission, parts, call),
  ]);
  return { spec, images, ...diskImages, secrets, files };
}

/**
 * As far as it goes without fetching, building or writing anything. Returns the names of images that are missing: those
 * too that would be built anew, because what they are made of is not what it was in `before`, the current generation.
 */
export async function resolvePreview(
  submission: Submission,
  before: Generation | undefined,
  parts: Parts,
  call: Call,
): Promise<{ readonly generation: Generation; readonly missingImages: readonly string[] }> {
  const { spec, files } = submission;
  const images: Record<string, Digest> = {};
  const missingImages: string[] = [];
  for (const written of imagesOf(spec)) {
    const isBuilt = spec.images[written] !== undefined;
    const found = isBuilt
      ? await keptImage(written, submission, before, parts, call)
      : await parts.images.find(written, call);
    if (found === undefined) missingImages.push(written);
    else images[written] = found.digest;
  }
  const secrets: Record<string, string> = {};
  for (const name of Object.keys(spec.secrets)) {
    const value = submission.secrets.get(name);
    const version =
      value === undefined
        ? await parts.secrets.current(spec.stack, name, call)
        : parts.secrets.versionOf(spec.stack, name, value);
    if (version !== undefined) secrets[name] = version;
  }
  const diskImages = await resolveDiskImages(spec, parts, call);
  return { generation: { spec, images, ...diskImages, secrets, files }, missingImages };
}

/**
 * The image that `before` has of a section, when it is made of the same things and its name still means it here. It is
 * not built again because an image it is from has moved: that is asked for (`--build`). Where the name means another one,
 * which was built by hand or for a generation that failed, what comes of building it is seen when that is done.
 */
async function keptImage(
  name: string,
  submission: Submission,
  before: Generation | undefined,
  parts: Parts,
  call: Call,
): Promise<Image | undefined> {
  const pinned = before?.images[name];
  if (pinned === undefined || !isSameRecipe(name, submission, before)) return undefined;
  const image = await parts.images.find(builtReference(submission.spec.stack, name), call);
  return image?.digest === pinned ? image : undefined;
}

/** Whether an image of the stack file is made of the same things as in `before`, and so are those it is from. */
function isSameRecipe(
  name: string,
  { spec, files }: Pick<Submission, "spec" | "files">,
  before: Generation | undefined,
): boolean {
  const section = spec.images[name];
  const former = before?.spec.images[name];
  // An image from elsewhere is no recipe; where it was one before, what is from it changes.
  if (section === undefined || former === undefined || before === undefined) return section === former;
  return (
    canonicalJson(section) === canonicalJson(former) &&
    Object.values(section.files).every((path) => files[path] === before.files[path]) &&
    isSameRecipe(section.from, { spec, files }, before)
  );
}

/** Builds `[image.x]` sections, each after those it is from. */
export async function buildImages(
  submission: Submission,
  names: readonly string[],
  fresh: boolean,
  parts: Parts,
  call: Call,
): Promise<ReadonlyMap<string, Image>> {
  const { spec } = submission;
  const built = new Map<string, Image>();
  const build = async (name: string, section: ImageSection): Promise<Image> => {
    const known = built.get(name);
    if (known !== undefined) return known;
    const base = spec.images[section.from];
    if (base !== undefined) await build(section.from, base);
    const topic = `image ${name}`;
    let isWork = false;
    // What is built already says nothing, so neither do we.
    const report = (progress: Progress): void => {
      if (!isWork) call.report({ topic, state: "building" });
      isWork = true;
      call.report(progress);
    };
    const image = await parts.images.build(recipeOf(name, section, submission, fresh, parts), { ...call, report });
    if (isWork) call.report({ topic, state: "built" });
    built.set(name, image);
    return image;
  };
  for (const name of names) {
    const section = spec.images[name];
    if (section === undefined) {
      throw new Fault("not-found", `the stack file has no [image.${name}]`, {
        hint: `it has: ${Object.keys(spec.images).join(", ") || "none"}`,
      });
    }
    await build(name, section);
  }
  return built;
}

async function resolveImages(
  submission: Submission,
  options: { readonly pull: boolean; readonly build: boolean },
  before: Generation | undefined,
  parts: Parts,
  call: Call,
): Promise<Record<string, Digest>> {
  const { spec } = submission;
  const names = imagesOf(spec);
  const pulls = names
    .filter((name) => spec.images[name] === undefined)
    .map(async (name): Promise<readonly [string, Digest]> => [
      name,
      (await fetchImage(name, options.pull, parts, call)).digest,
    ]);
  const isAnew = options.pull || options.build;
  const kept: Record<string, Digest> = {};
  const local: string[] = [];
  for (const name of names) {
    if (spec.images[name] === undefined) continue;
    const image = isAnew ? undefined : await keptImage(name, submission, before, parts, call);
    if (image === undefined) local.push(name);
    else kept[name] = image.digest;
  }
  const built = await buildImages(submission, local, options.build, parts, call);
  const digests = { ...kept, ...Object.fromEntries(await Promise.all(pulls)) };
  for (const [name, image] of built) if (names.includes(name)) digests[name] = image.digest;
  return digests;
}

/** The image here, else from its registry; `always` asks the registry even when it is here. */
export async function fetchImage(reference: string, always: boolean, parts: Parts, call: Call): Promise<Image> {
  const here = always ? undefined : await parts.images.find(reference, call);
  if (here !== undefined) return here;
  return await parts.images.pull(reference, {}, call);
}

async function resolveSecrets(
  { spec, secrets }: Submission,
  parts: Parts,
  call: Call,
): Promise<Record<string, string>> {
  const versions: Record<string, string> = {};
  for (const [name, section] of Object.entries(spec.secrets)) {
    if (section.source === "generate") {
      versions[name] = await parts.secrets.generate(spec.stack, name, section.length, call);
      continue;
    }
    const value = secrets.get(name);
    const version =
      value === undefined
        ? await parts.secrets.current(spec.stack, name, call)
        : await parts.secrets.put(spec.stack, name, value, call);
    if (version === undefined) {
      const source = section.source === "env" ? `the variable ${section.variable}` : `the file ${section.path}`;
      throw new Fault("invalid", `secret ${name} has no value: ${source} was not sent`, {
        hint: section.source === "env" ? `set it: ${section.variable}=… croft up` : `make ${section.path} readable`,
      });
    }
    versions[name] = version;
  }
  return versions;
}

/** Images as instances write them, each once. Machines begin with disk images, which are not pulled or built. */
function imagesOf(spec: StackSpec): readonly string[] {
  const programs = Object.values(spec.instances).filter(({ kind }) => kind !== "vm");
  return [...new Set(programs.map((section) => section.image))];
}

/** Pins what machines' disks begin as. Nothing is fetched: a disk image is in the library or it is not. */
export async function resolveDiskImages(
  spec: StackSpec,
  parts: Parts,
  call: Call,
): Promise<Pick<Generation, "diskImages">> {
  const digests: Record<string, Digest> = {};
  for (const [name, { disks }] of Object.entries(spec.instances)) {
    for (const disk of disks ?? []) {
      if (disk.from.kind === "blank") continue;
      digests[disk.from.image] = (await findDiskImage(name, disk, parts.diskImages, call)).digest;
    }
  }
  return Object.keys(digests).length === 0 ? {} : { diskImages: digests };
}

async function findDiskImage(
  section: string,
  { name, from, sizeBytes }: DiskSection,
  images: DiskImages,
  call: Call,
): Promise<DiskImage> {
  if (from.kind === "blank") throw new Fault("bug", `disk ${name} of vm ${section} begins as nothing`);
  const image = await images.find(from.image, call);
  if (image === undefined) {
    throw new Fault("not-found", `vm ${section}: there is no disk image ${from.image} on this machine`, {
      hint: `bring it in: croft image import FILE|URL --name ${from.image}`,
    });
  }
  const wanted = from.kind === "iso" ? "iso" : "disk";
  if (image.kind !== wanted) {
    const [is, field] = image.kind === "iso" ? ["an ISO", "iso"] : ["no ISO", "image"];
    throw new Fault("invalid", `vm ${section}: ${from.image} is ${is}`, {
      hint: `write ${field} = "${from.image}" for disk ${name}`,
    });
  }
  if (sizeBytes !== undefined && sizeBytes < image.virtualSizeBytes) {
    const [size, least] = [formatSize(sizeBytes), formatSize(image.virtualSizeBytes)];
    throw new Fault("invalid", `vm ${section}: disk ${name} of ${size} cannot hold ${from.image}, which has ${least}`, {
      hint: "write a larger size, or leave it out",
    });
  }
  return image;
}

function recipeOf(name: string, section: ImageSection, submission: Submission, fresh: boolean, parts: Parts): Recipe {
  const { spec, files } = submission;
  const { command, entrypoint, user, workdir } = section;
  return {
    reference: builtReference(spec.stack, name),
    from: spec.images[section.from] === undefined ? section.from : builtReference(spec.stack, section.from),
    packages: section.packages,
    files: Object.entries(section.files).map(([destination, path]) => {
      const digest = files[path];
      if (digest === undefined) {
        throw new Fault("invalid", `image ${name}: ${path} was not sent along with the stack file`);
      }
      return { destination, digest, tarPath: parts.files.pathOf(digest) };
    }),
    ...(command === undefined ? {} : { command }),
    ...(entrypoint === undefined ? {} : { entrypoint }),
    env: section.env,
    ...(user === undefined ? {} : { user }),
    ...(workdir === undefined ? {} : { workdir }),
    fresh,
  };
}
