import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { isDigest, type Digest } from "../../base/id.ts";
import { ImageService, type ImageSchema } from "../../gen/croft/v1/image_pb.ts";
import type { Image } from "../../image/contract.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { operationMessage } from "./operation.ts";
import { required } from "./required.ts";
import { readSubmission } from "./submission.ts";

type ImageNeeds = Pick<Needs, "images" | "diskImages" | "cloud" | "operations" | "registries" | "files">;

export function imageService({ images, diskImages, cloud, operations, registries, files }: ImageNeeds): Served {
  const find = async (name: string, call: Call): Promise<Image> => {
    const image = isDigest(name) ? await images.get(name, call) : await images.find(name, call);
    if (image === undefined) {
      throw new Fault("not-found", `the image ${name} is not here`, {
        hint: `see what is: croft image ls; or fetch it: croft image pull ${name}`,
      });
    }
    return image;
  };
  const describe = async (image: Image, call: Call): Promise<MessageInitShape<typeof ImageSchema>> =>
    toMessage(image, await cloud.stacks.imagesInUse(call));

  return serve(ImageService, {
    async listImages(_, call) {
      const [all, inUse] = await Promise.all([images.list(call), cloud.stacks.imagesInUse(call)]);
      return { images: all.map((image) => toMessage(image, inUse)) };
    },
    async getImage({ image }, call) {
      return await describe(await find(image, call), call);
    },
    async pullImage({ reference, platform }) {
      required(reference, "reference");
      const operation = await operations.begin("image.pull", reference, async (call) => {
        const { digest } = await images.pull(reference, platform === "" ? {} : { platform }, call);
        return { digest };
      });
      return operationMessage(operation);
    },
    async pushImage({ reference }) {
      required(reference, "reference");
      const operation = await operations.begin("image.push", reference, async (call) => ({
        digest: await images.push(reference, {}, call),
      }));
      return operationMessage(operation);
    },
    async buildImages({ source, images: names, fresh }, call) {
      const { submission } = await readSubmission(source, files, call);
      return operationMessage(await cloud.stacks.build(submission, names, fresh, call));
    },
    async loadImages(requests, call) {
      const loaded = await images.load(chunksOf(requests), call);
      const inUse = await cloud.stacks.imagesInUse(call);
      return { images: loaded.map((image) => toMessage(image, inUse)) };
    },
    async *saveImages({ references, format }, call) {
      if (references.length === 0) required("", "references");
      if (format !== "" && format !== "oci" && format !== "docker") {
        throw new Fault("invalid", `there is no archive format ${format}`, { hint: "use oci or docker" });
      }
      for await (const chunk of images.save(references, format === "docker" ? "docker" : "oci", call)) yield { chunk };
    },
    async tagImage({ image, reference }, call) {
      required(reference, "reference");
      await images.tag(image, reference, call);
      return await describe(await find(reference, call), call);
    },
    async removeImage({ image, force }, call) {
      const { digest, references } = await find(image, call);
      const users = (await cloud.stacks.imagesInUse(call)).get(digest) ?? [];
      // The content stays as long as a generation needs it; taking the last name away is what surprises.
      const last = isDigest(image) || references.length <= 1;
      if (users.length > 0 && last && !force) {
        throw new Fault("precondition", `remove the image ${image}: ${users.join(", ")} uses it`, {
          hint: "remove what uses it first, or say force to take the name away and keep the content until then",
        });
      }
      await images.remove(image, call);
      return {};
    },
    async collectImages(_, call) {
      const kept = [...(await cloud.stacks.imagesInUse(call)).keys()];
      const [programs, disks] = await Promise.all([images.collect(kept, call), diskImages.collect(kept, call)]);
      // After them: it writes, and on a full disk there is room for that only now.
      await cloud.stacks.collect(call);
      return { images: programs.images + disks.images, freedBytes: programs.freedBytes + disks.freedBytes };
    },
    async loginRegistry({ registry, username, password }, call) {
      required(username, "username");
      required(password, "password");
      await registries.login(registry, { username, password }, call);
      return {};
    },
    async logoutRegistry({ registry }, call) {
      await registries.logout(registry, call);
      return {};
    },
  });
}

function toMessage(
  { digest, references, config, layers, createdMs, sizeBytes }: Image,
  inUse: ReadonlyMap<Digest, readonly string[]>,
): MessageInitShape<typeof ImageSchema> {
  return {
    digest,
    references: [...references],
    created: timestampFromMs(createdMs),
    sizeBytes,
    architecture: config.architecture,
    os: config.os,
    layers: layers.map((layer) => layer.digest),
    entrypoint: [...config.entrypoint],
    command: [...config.command],
    env: config.env,
    user: config.user,
    workdir: config.workdir,
    labels: config.labels,
    usedBy: [...(inUse.get(digest) ?? [])],
  };
}

/** A stream of messages as the stream of bytes that it carries. */
export async function* chunksOf(requests: AsyncIterable<{ readonly chunk: Uint8Array }>): AsyncGenerator<Uint8Array> {
  for await (const { chunk } of requests) if (chunk.length > 0) yield chunk;
}
