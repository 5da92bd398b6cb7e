import { randomInt } from "node:crypto";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { namePattern } from "../base/id.ts";
import type { Entry, Store } from "../store/contract.ts";
import type { SecretFacts, Secrets, SecretVersion } from "./contract.ts";
import { createSecretKey, readSecretKey, type SecretKey } from "./key.ts";
import { Secret } from "./secret.ts";

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const sizeLimitBytes = 512 * 1024;
/** As in a stack file: fewer letters and digits are guessed. */
const lengthLeast = 8;
const lengthLimit = 1024;

/** `secret/<stack>/<name>`: which version is the newest. */
const pointerPrefix = "secret/";
/** `secret-version/<stack>/<name>/<version>`: a sealed value. */
const versionPrefix = "secret-version/";
/** Which key sealed what is in this store, so that a lost key file is noticed and not replaced. */
const fingerprintKey = "secret-key";

interface Pointer {
  readonly version: SecretVersion;
  readonly createdMs: number;
}

interface SealedVersion {
  readonly sealed: string;
}

/**
 * Secrets in the Store, sealed with a key from a file.
 *
 * A version is written before the pointer that names it, so a crash between the two leaves a version nobody names, which
 * `prune` removes, and never a pointer to nothing.
 */
export class SealedSecrets implements Secrets {
  readonly #store: Store;
  readonly #key: SecretKey;
  #lastChange: Promise<unknown> = Promise.resolve();

  /**
   * Reads the key at `keyPath`, or makes it when the store never had one. Throws `corrupt` when the key is gone or
   * another one than that which sealed the store's secrets.
   */
  static async open(store: Store, keyPath: string, call: Call): Promise<SealedSecrets> {
    const known = (await store.get<string>(fingerprintKey, call))?.value;
    const found = await readSecretKey(keyPath);
    if (found === undefined && known !== undefined) throw lost(keyPath, "is gone");
    const key = found ?? (await createSecretKey(keyPath));
    const fingerprint = key.name("fingerprint");
    if (known === undefined) await store.put(fingerprintKey, fingerprint, "absent", call);
    else if (known !== fingerprint) throw lost(keyPath, "is not the one that sealed them");
    return new SealedSecrets(store, key);
  }

  private constructor(store: Store, key: SecretKey) {
    this.#store = store;
    this.#key = key;
  }

  async put(stack: string, name: string, value: Uint8Array, call: Call): Promise<SecretVersion> {
    const version = this.versionOf(stack, name, value);
    return this.#exclusively(async () => {
      const pointer = await this.#pointer(stack, name, call);
      if (pointer?.value.version !== version) await this.#add(stack, name, version, value, pointer, call);
      return version;
    });
  }

  async generate(stack: string, name: string, length: number, call: Call): Promise<SecretVersion> {
    const value = randomText(length);
    const version = this.versionOf(stack, name, value);
    return this.#exclusively(async () => {
      const pointer = await this.#pointer(stack, name, call);
      if (pointer !== undefined) return pointer.value.version;
      await this.#add(stack, name, version, value, undefined, call);
      return version;
    });
  }

  async rotate(stack: string, name: string, length: number, call: Call): Promise<SecretVersion> {
    return this.put(stack, name, randomText(length), call);
  }

  versionOf(stack: string, name: string, value: Uint8Array): SecretVersion {
    checkNames(stack, name);
    if (value.length === 0 || value.length > sizeLimitBytes) {
      throw new Fault("invalid", `the value of secret ${stack}/${name} has ${value.length} bytes`, {
        hint: `a secret has 1 to ${sizeLimitBytes} bytes`,
      });
    }
    return this.#key.name("version", stack, name, value);
  }

  async current(stack: string, name: string, call: Call): Promise<SecretVersion | undefined> {
    return (await this.#pointer(stack, name, call))?.value.version;
  }

  async resolve(stack: string, name: string, version: SecretVersion, call: Call): Promise<Secret> {
    checkNames(stack, name);
    const key = versionKey(stack, name, version);
    const entry = /^[0-9a-f]{32}$/.test(version) ? await this.#store.get<SealedVersion>(key, call) : undefined;
    if (entry === undefined) {
      throw new Fault("not-found", `secret ${stack}/${name} has no version ${version}`, {
        hint: `set it again: croft secret set ${stack} ${name}`,
      });
    }
    return new Secret(this.#key.open(entry.value.sealed, key));
  }

  async list(stack: string | undefined, call: Call): Promise<readonly SecretFacts[]> {
    const under = stack === undefined ? "" : `${stack}/`;
    const pointers = await this.#store.list<Pointer>(pointerPrefix + under, call);
    const counts = new Map<string, number>();
    for (const { key } of await this.#store.list(versionPrefix + under, call)) {
      const secret = key.slice(versionPrefix.length, key.lastIndexOf("/"));
      counts.set(secret, (counts.get(secret) ?? 0) + 1);
    }
    const facts = pointers.map(({ key, value: { version, createdMs } }): SecretFacts => {
      const secret = key.slice(pointerPrefix.length);
      const [stack = "", name = ""] = secret.split("/");
      return { stack, name, version, createdMs, versions: counts.get(secret) ?? 0 };
    });
    // In the order of keys `shop-2/a` comes before `shop/a`.
    return facts.sort((left, right) => compare(left.stack, right.stack) || compare(left.name, right.name));
  }

  async remove(stack: string, name: string, call: Call): Promise<void> {
    checkNames(stack, name);
    await this.#exclusively(async () => {
      await this.#store.remove(pointerKey(stack, name), "any", call);
      const versions = await this.#store.list(`${versionPrefix}${stack}/${name}/`, call);
      await Promise.all(versions.map(({ key }) => this.#store.remove(key, "any", call)));
    });
  }

  async prune(stack: string, inUse: ReadonlyMap<string, ReadonlySet<SecretVersion>>, call: Call): Promise<void> {
    await this.#exclusively(async () => {
      const newest = new Map((await this.list(stack, call)).map(({ name, version }) => [name, version]));
      const under = `${versionPrefix}${stack}/`;
      const old = (await this.#store.list(under, call)).filter(({ key }) => {
        const [name = "", version = ""] = key.slice(under.length).split("/");
        return newest.get(name) !== version && inUse.get(name)?.has(version) !== true;
      });
      await Promise.all(old.map(({ key }) => this.#store.remove(key, "any", call)));
    });
  }

  async #pointer(stack: string, name: string, call: Call): Promise<Entry<Pointer> | undefined> {
    checkNames(stack, name);
    return this.#store.get<Pointer>(pointerKey(stack, name), call);
  }

  async #add(
    stack: string,
    name: string,
    version: SecretVersion,
    value: Uint8Array,
    older: Entry<Pointer> | undefined,
    call: Call,
  ): Promise<void> {
    const key = versionKey(stack, name, version);
    await this.#store.put(key, { sealed: this.#key.seal(value, key) } satisfies SealedVersion, "any", call);
    const pointer: Pointer = { version, createdMs: call.clock.nowMs() };
    await this.#store.put(pointerKey(stack, name), pointer, older?.revision ?? "absent", call);
  }

  /** Changes happen one after another, so that what removes versions never meets one that is about to be named. */
  #exclusively<Result>(change: () => Promise<Result>): Promise<Result> {
    const turn = this.#lastChange.then(change);
    this.#lastChange = turn.catch(() => {});
    return turn;
  }
}

function pointerKey(stack: string, name: string): string {
  return `${pointerPrefix}${stack}/${name}`;
}

function versionKey(stack: string, name: string, version: SecretVersion): string {
  return `${versionPrefix}${stack}/${name}/${version}`;
}

function checkNames(stack: string, name: string): void {
  for (const text of [stack, name]) {
    if (!namePattern.test(text)) {
      throw new Fault("invalid", `${JSON.stringify(text.slice(0, 80))} cannot name a stack or secret`, {
        hint: "use lower-case letters, digits and dashes, at most 40",
      });
    }
  }
}

function compare(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

function randomText(length: number): Uint8Array {
  if (!Number.isInteger(length) || length < lengthLeast || length > lengthLimit) {
    throw new Fault("invalid", `a generated secret cannot have ${length} characters`, {
      hint: `use ${lengthLeast} to ${lengthLimit}; 32 is plenty`,
    });
  }
  return Buffer.from(Array.from({ length }, () => alphabet.charAt(randomInt(alphabet.length))).join(""));
}

function lost(keyPath: string, what: string): Fault {
  return new Fault("corrupt", `open the secrets: the key ${keyPath} ${what}`, {
    hint: "restore the key file from a backup; it is needed to read the secrets kept so far",
  });
}
