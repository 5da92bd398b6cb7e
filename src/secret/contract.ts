import type { Call } from "../base/call.ts";
import type { Secret } from "./secret.ts";

/**
 * Secrets of stacks, kept so that the database alone does not reveal them. A value goes in and comes out only for the
 * instance that uses it; a generation names versions. No Fault, event or record ever carries a value.
 */
export interface Secrets {
  /**
   * Makes `value` the newest version and returns it. Idempotent: the same value of the same secret has the same version,
   * so an unchanged secret changes no generation. `invalid` when it is empty or above 512 KiB.
   */
  put(stack: string, name: string, value: Uint8Array, call: Call): Promise<SecretVersion>;
  /** The newest version, made from `length` random letters and digits the first time only. */
  generate(stack: string, name: string, length: number, call: Call): Promise<SecretVersion>;
  /** A new version from `length` random letters and digits, whatever there was. */
  rotate(stack: string, name: string, length: number, call: Call): Promise<SecretVersion>;
  /** What `put` would return for this value, without keeping anything: for a plan. */
  versionOf(stack: string, name: string, value: Uint8Array): SecretVersion;
  /** The newest version, or undefined when there is no such secret. */
  current(stack: string, name: string, call: Call): Promise<SecretVersion | undefined>;
  /** `not-found` when that version is not kept; `corrupt` when it cannot be opened with this host's key. */
  resolve(stack: string, name: string, version: SecretVersion, call: Call): Promise<Secret>;
  /** By stack and name; of one stack when it is given. */
  list(stack: string | undefined, call: Call): Promise<readonly SecretFacts[]>;
  /** Removes all versions. Idempotent. */
  remove(stack: string, name: string, call: Call): Promise<void>;
  /** Removes the versions of `stack` that are neither the newest nor named in `inUse`: by name, those of kept generations. */
  prune(stack: string, inUse: ReadonlyMap<string, ReadonlySet<SecretVersion>>, call: Call): Promise<void>;
}

/** 32 hex digits that follow from the value and a key of this host: equal for equal values, and telling nothing else. */
export type SecretVersion = string;

export interface SecretFacts {
  readonly stack: string;
  readonly name: string;
  /** The newest version. */
  readonly version: SecretVersion;
  /** When that version was made. */
  readonly createdMs: number;
  /** How many versions are kept. */
  readonly versions: number;
}
