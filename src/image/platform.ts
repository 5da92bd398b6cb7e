import { arch } from "node:process";
import { Fault } from "../base/fault.ts";
import { shown } from "./shown.ts";

/** For which machine an image is, in the words of OCI: `linux/amd64`, `linux/arm/v7`. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** Node's names for processors → OCI's; those that are the same in both are not listed. */
const architectures: ReadonlyMap<string, string> = new Map([
  ["x64", "amd64"],
  ["ia32", "386"],
  ["ppc64", "ppc64le"],
]);

/** Other people's names for processors → OCI's, and the variant they imply. Maps, as the keys come from strangers. */
const aliases: ReadonlyMap<string, readonly [string, string?]> = new Map([
  ["x86_64", ["amd64"]],
  ["x86-64", ["amd64"]],
  ["aarch64", ["arm64"]],
  ["i386", ["386"]],
  ["armhf", ["arm", "v7"]],
  ["armel", ["arm", "v6"]],
]);

/** What a missing variant means. */
const baseVariants: ReadonlyMap<string, string> = new Map([
  ["amd64", "v1"],
  ["arm64", "v8"],
  ["arm", "v7"],
]);

export function hostPlatform(): Platform {
  return { os: "linux", architecture: architectures.get(arch) ?? arch };
}

/** Reads `linux/arm64/v8`, `arm64` or `linux/amd64`. Throws an `invalid` Fault. */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split("/");
  const [os, architecture, variant] = parts.length === 1 ? ["linux", ...parts] : parts;
  const plain = /^[a-z0-9_.-]{1,32}$/;
  if (parts.length > 3 || ![os, architecture, variant ?? "v1"].every((part) => plain.test(part ?? ""))) {
    throw new Fault("invalid", `"${text.slice(0, 80)}" is not a platform`, {
      hint: "write os/architecture or os/architecture/variant, such as linux/amd64 or linux/arm64/v8",
    });
  }
  if (os !== "linux") {
    throw new Fault("unsupported", `images for ${os} cannot run here`, { hint: "choose one for linux" });
  }
  return platformOf(os, architecture ?? "", variant);
}

/** For people, also when a stranger wrote it. */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return shown([os, architecture, ...(variant === undefined ? [] : [variant])].join("/"));
}

/** A platform with other people's names for processors made OCI's: `x86_64`, `aarch64`, `armhf`. */
export function platformOf(os: string, architecture: string, variant: string | undefined): Platform {
  const [name, implied] = aliases.get(architecture) ?? [architecture];
  const level = variant === undefined || variant === "" ? implied : variant;
  return level === undefined ? { os, architecture: name } : { os, architecture: name, variant: level };
}

/**
 * How well something for `offered` runs on `wanted`: 0 not at all, otherwise the higher the better. A processor runs
 * what is for its own level and, for arm and amd64, what is for lower ones.
 */
export function suitability(offered: Platform, wanted: Platform): number {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return 0;
  const base = baseVariants.get(wanted.architecture);
  const offeredVariant = offered.variant ?? base;
  const wantedVariant = wanted.variant ?? base;
  if (offeredVariant === wantedVariant) return 1000;
  const offeredLevel = level(offeredVariant);
  const wantedLevel = level(wantedVariant);
  if (!["arm", "amd64"].includes(wanted.architecture) || offeredLevel === undefined || wantedLevel === undefined) {
    return 0;
  }
  return offeredLevel < wantedLevel ? offeredLevel : 0;
}

/** 7 for `v7`. */
function level(variant: string | undefined): number | undefined {
  const match = /^v([1-9][0-9]?)$/.exec(variant ?? "");
  return match === null ? undefined : Number(match[1]);
}
