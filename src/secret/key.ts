import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { Fault, isFault } from "../base/fault.ts";
import { hostFault } from "../host/errno.ts";
import { writeFileAtomic } from "../host/file.ts";

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const header = "croft-secret-key-1 ";
const filePattern = /^croft-secret-key-1 ([A-Za-z0-9+/]{43}=)$/;

/**
 * The key that seals secrets of this host. It lies in a file of its own, mode 0600, outside the database: a copy of the
 * database alone reveals nothing. Two keys are derived from it, so that version ids and sealing share none.
 */
export class SecretKey {
  readonly #sealing: Uint8Array;
  readonly #naming: Uint8Array;

  constructor(secret: Uint8Array) {
    this.#sealing = new Uint8Array(hkdfSync("sha256", secret, "", "croft secret sealing", keyBytes));
    this.#naming = new Uint8Array(hkdfSync("sha256", secret, "", "croft secret version", keyBytes));
  }

  /** 32 hex digits that follow from `parts` and nobody without the key can compute. */
  name(...parts: readonly (string | Uint8Array)[]): string {
    const hmac = createHmac("sha256", this.#naming);
    for (const part of parts) {
      const bytes = Buffer.from(part);
      // Each part's length goes first, so that no two lists of parts look alike.
      hmac.update(`${bytes.length}:`).update(bytes);
    }
    return hmac.digest("hex").slice(0, 32);
  }

  /** `value` encrypted and bound to `context`, as base64: AES-256-GCM with a random nonce. */
  seal(value: Uint8Array, context: string): string {
    const nonce = randomBytes(nonceBytes);
    const cipher = createCipheriv("aes-256-gcm", this.#sealing, nonce).setAAD(Buffer.from(context));
    return Buffer.concat([nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()]).toString("base64");
  }

  /** Undoes `seal`. Throws `corrupt` when it was sealed with another key or context, or was changed since. */
  open(sealed: string, context: string): Uint8Array {
    try {
      const bytes = Buffer.from(sealed, "base64");
      const decipher = createDecipheriv("aes-256-gcm", this.#sealing, bytes.subarray(0, nonceBytes), {
        authTagLength: tagBytes,
      });
      decipher.setAAD(Buffer.from(context)).setAuthTag(bytes.subarray(-tagBytes));
      return Buffer.concat([decipher.update(bytes.subarray(nonceBytes, -tagBytes)), decipher.final()]);
    } catch (thrown) {
      throw new Fault("corrupt", `open ${context}: it was changed, or sealed with another key`, { cause: thrown });
    }
  }
}

/**
 * The key in the file at `path`, or undefined when there is none. Throws `forbidden` when others may read the file,
 * `corrupt` when it holds no key.
 */
export async function readSecretKey(path: string): Promise<SecretKey | undefined> {
  const text = await readPrivateFile(path).catch((thrown: unknown) => {
    if (isFault(thrown, "not-found")) return undefined;
    throw thrown;
  });
  if (text === undefined) return undefined;
  const secret = filePattern.exec(text)?.[1];
  if (secret === undefined) {
    throw new Fault("corrupt", `read the key of secrets: ${path} holds no key`, {
      hint: "restore it from a backup; without it the secrets kept so far cannot be read",
    });
  }
  return new SecretKey(Buffer.from(secret, "base64"));
}

/** Makes a new key and keeps it at `path`, durably. Nothing may be there yet. */
export async function createSecretKey(path: string): Promise<SecretKey> {
  const secret = randomBytes(keyBytes);
  await writeFileAtomic(path, `${header}${secret.toString("base64")}\n`, { mode: 0o600 });
  return new SecretKey(secret);
}

async function readPrivateFile(path: string): Promise<string> {
  try {
    await using file = await open(path, "r");
    const facts = await file.stat();
    if ((facts.mode & 0o077) !== 0 || facts.uid !== process.getuid?.()) {
      throw new Fault("forbidden", `read the key of secrets: others can read ${path}`, {
        hint: `chown it to the daemon's user and chmod 600 ${path}`,
      });
    }
    return (await file.readFile("utf8")).trimEnd();
  } catch (thrown) {
    throw thrown instanceof Fault ? thrown : hostFault(thrown, `read the key of secrets ${path}`);
  }
}
