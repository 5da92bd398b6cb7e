import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Fault } from "../../base/fault.ts";
import type { Digest } from "../../base/id.ts";
import {
  DiskImageService,
  type DiskImageSchema,
  type ImportDiskImageRequest,
  type UploadDiskImageRequest,
} from "../../gen/croft/v1/disk_image_pb.ts";
import type { DiskImage, DiskImport } from "../../image/disk/contract.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { introduced } from "./introduced.ts";
import { required } from "./required.ts";
import { operationMessage } from "./operation.ts";

export function libraryService({
  diskImages,
  cloud,
  operations,
}: Pick<Needs, "diskImages" | "cloud" | "operations">): Served {
  return serve(DiskImageService, {
    async listDiskImages(_, call) {
      const [all, inUse] = await Promise.all([diskImages.list(call), cloud.stacks.imagesInUse(call)]);
      return { images: all.map((image) => toMessage(image, inUse)) };
    },
    async importDiskImage(request) {
      const wanted = readImport(request);
      const subject = request.name === "" ? `${request.url}${request.path}` : request.name;
      const operation = await operations.begin("disk-image.import", subject, async (call) => {
        const { names, digest } = await diskImages.import(wanted, call);
        return { names: [...names], digest };
      });
      return operationMessage(operation);
    },
    async uploadDiskImage(requests, call) {
      const { first, chunks } = await introduced<UploadDiskImageRequest>(requests);
      const { filename = "", checksum = "", name = "", allowUnverified = false, replace = false } = first ?? {};
      required(filename, "filename");
      const source = { kind: "bytes", bytes: chunks, filename } as const;
      const image = await diskImages.import(
        {
          source,
          allowUnverified,
          replace,
          ...(name !== "" && { name }),
          ...(checksum !== "" && { checksum: { kind: "digest", digest: checksum } as const }),
        },
        call,
      );
      return toMessage(image, await cloud.stacks.imagesInUse(call));
    },
    async verifyDiskImage({ name }) {
      const operation = await operations.begin("disk-image.verify", name, async (call) => {
        const { digest, verified } = await diskImages.verify(name, call);
        return { digest, verified };
      });
      return operationMessage(operation);
    },
    async removeDiskImage({ name }, call) {
      const image = await diskImages.find(name, call);
      if (image === undefined) {
        throw new Fault("not-found", `there is no disk image ${name}`, { hint: "see: croft image ls --disks" });
      }
      const users = (await cloud.stacks.imagesInUse(call)).get(image.digest) ?? [];
      if (users.length > 0 && image.names.length <= 1) {
        throw new Fault("precondition", `remove the disk image ${name}: ${users.join(", ")} uses it`, {
          hint: "remove what uses it first",
        });
      }
      await diskImages.remove(name, call);
      return {};
    },
  });
}

function readImport(request: ImportDiskImageRequest): DiskImport {
  const { name, url, path, checksum, checksumListUrl, signatureUrl, keyringPath, allowUnverified, replace } = request;
  if ((url === "") === (path === "")) {
    throw new Fault("invalid", "say where the disk image comes from: one of url and path");
  }
  if (path !== "" && !path.startsWith("/")) {
    throw new Fault("invalid", `"${path}" is not an absolute path`, { hint: "begin it with /" });
  }
  if (checksum !== "" && checksumListUrl !== "") {
    throw new Fault("invalid", "a checksum and a list of checksums are one too many", { hint: "keep one of them" });
  }
  if (keyringPath === "" ? signatureUrl !== "" : checksumListUrl === "") {
    throw new Fault("invalid", "a signature needs the list it is for, and a keyring to hold it against");
  }
  const detached = signatureUrl === "" ? {} : ({ detached: { kind: "url", url: signatureUrl } } as const);
  const signature = { ...detached, keyringPath };
  return {
    source: url === "" ? { kind: "file", path } : { kind: "url", url },
    allowUnverified,
    replace,
    ...(name !== "" && { name }),
    ...(checksum !== "" && { checksum: { kind: "digest", digest: checksum } }),
    ...(checksumListUrl !== "" && {
      checksum: {
        kind: "list",
        list: { kind: "url", url: checksumListUrl },
        ...(keyringPath !== "" && { signature }),
      },
    }),
  };
}

function toMessage(
  { names, importedMs, ...image }: DiskImage,
  inUse: ReadonlyMap<Digest, readonly string[]>,
): MessageInitShape<typeof DiskImageSchema> {
  const { digest, kind, format, virtualSizeBytes, sizeBytes, verified, origin } = image;
  return {
    digest,
    kind,
    format,
    virtualSizeBytes,
    sizeBytes,
    verified,
    origin,
    names: [...names],
    imported: timestampFromMs(importedMs),
    usedBy: [...(inUse.get(digest) ?? [])],
  };
}
