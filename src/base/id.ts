import type { createHash as createHashOf } from "node:crypto";
declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/**
 * An instance's id: `<stack>.<name>.<ordinal>.<hash8>`. The hash covers every part of its specification that cannot be
 * changed in place, so "same id" means "nothing to recreate" and every name on the host can derive from it.
 */
export type InstanceId = Branded<"InstanceId">;
/** `sha256:` and 64 lower-case hex digits. */
export type Digest = Branded<"Digest">;
export type OperationId = Branded<"OperationId">;
/** `<stack>.<name>`: a volume of a stack; survives generations. */
export type VolumeId = Branded<"VolumeId">;
/** `<stack>.<name>`: a network of a stack. */
export type NetworkId = Branded<"NetworkId">;

/** What stacks, instances, networks, volumes, secrets and images may be called: a DNS label of at most 40 characters. */
export const namePattern = /^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/;

const digestPattern = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: string): text is Digest {
  return digestPattern.test(text);
}

export function sha256(data: string | Uint8Array): Digest {
  return `sha256:${sha256Hex(data)}` as Digest;
}

/** The first `length` hex digits of the SHA-256 of `text`: for names on the host that must stay short and stable. */
export function shortHash(text: string, length: number): string {
  return sha256Hex(text).slice(0, length);
}

/** Loaded when it is needed: the command line starts faster than this module does, and seldom needs it. */
let createHash: typeof createHashOf | undefined;

function sha256Hex(data: string | Uint8Array): string {
  createHash ??= process.getBuiltinModule("node:crypto").createHash;
  return createHash("sha256").update(data).digest("hex");
}

export function instanceId(stack: string, name: string, ordinal: number, specHash: string): InstanceId {
  return `${stack}.${name}.${ordinal}.${specHash}` as InstanceId;
}

/** The parts of an instance id, or undefined when `text` is not one. */
export function parseInstanceId(
  text: string,
): { stack: string; name: string; ordinal: number; specHash: string } | undefined {
  const match = /^([a-z0-9-]{1,40})\.([a-z0-9-]{1,40})\.([1-9][0-9]{0,4})\.([0-9a-f]{8})$/.exec(text);
  if (match === null) return undefined;
  const [, stack = "", name = "", ordinal = "", specHash = ""] = match;
  return { stack, name, ordinal: Number(ordinal), specHash };
}

/** JSON with sorted keys and no spaces, so that equal values have equal digests. `undefined` members are left out. */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0))
    .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
  return `{${members.join(",")}}`;
}
