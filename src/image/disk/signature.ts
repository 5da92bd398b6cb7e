import { chmod, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";
import { readSmallFile, removeTree } from "../../host/file.ts";
import { startConfined } from "./confined.ts";

const attempted = "verify the signature of the list of checksums";
const maxKeyringBytes = 4 << 20;
const bounds = { memoryBytes: 512 * 2 ** 20, seconds: 20 };

/**
 * Throws `corrupt` unless `signature` proves that a key of the keyring signed exactly these bytes: at least one good
 * signature, none bad. By gpgv, as apt does it.
 */
export async function verifySignature(
  data: Uint8Array,
  signature: Uint8Array,
  keyringPath: string,
  call: Call,
): Promise<void> {
  await withFiles({ data, signature }, keyringPath, async (gpgv, paths) => {
    refuseUnlessGood(await gpgv(["--status-fd", "1", paths.signature, "-"], paths.data, call));
  });
}

/**
 * The text of a document that carries its signature itself, `SHA256SUMS.asc` for example, once a key of the keyring is
 * proven to have signed it: what stands before and after it is not part of what was signed, and is left out. Throws as
 * `verifySignature` does.
 */
export async function readSigned(document: Uint8Array, keyringPath: string, call: Call): Promise<Buffer> {
  return await withFiles({ document }, keyringPath, async (gpgv, paths) => {
    refuseUnlessGood(await gpgv(["--status-fd", "1", "--output", "/dev/null"], paths.document, call));
    // The text as gpgv understood it, which is what it vouched for: no reading of our own can differ from that.
    return (await gpgv(["--output", "-"], paths.document, call)).said;
  });
}

type Gpgv = (
  argv: readonly string[],
  input: string,
  call: Call,
) => Promise<{ readonly said: Buffer; readonly lastWords: string }>;

/** Has gpgv read these, which are then under their names, and the keyring, in confinement. */
async function withFiles<Name extends string, Result>(
  files: Readonly<Record<Name, Uint8Array>>,
  keyringPath: string,
  work: (gpgv: Gpgv, paths: Readonly<Record<Name, string>>) => Promise<Result>,
): Promise<Result> {
  const keyring = binaryOf(await readSmallFile(keyringPath, maxKeyringBytes));
  // Readable by nobody, as whom gpgv runs, and written by us alone.
  const directory = await mkdtemp(join(tmpdir(), "croft-signature-"));
  try {
    await chmod(directory, 0o755);
    const keys = join(directory, "keys");
    await writeFile(keys, keyring, { mode: 0o644 });
    const paths = {} as Record<Name, string>;
    for (const name of Object.keys(files) as Name[]) {
      paths[name] = join(directory, name);
      await writeFile(paths[name], files[name], { mode: 0o644 });
    }
    const gpgv: Gpgv = async (argv, input, call) => {
      const whole = ["gpgv", "--homedir", directory, "--keyring", keys, ...argv];
      const program = await startConfined(whole, input, bounds, call);
      const said = Buffer.concat(await program.stdout.toArray());
      const { lastWords } = await program.ended;
      return { said, lastWords };
    };
    return await work(gpgv, paths);
  } catch (error) {
    throw hostFault(error, attempted);
  } finally {
    await removeTree(directory);
  }
}

/** `status` is what gpgv says for programs: one line, `[GNUPG:] WORD …`, for each thing it found. */
function refuseUnlessGood({ said: status, lastWords }: { readonly said: Buffer; readonly lastWords: string }): void {
  const words = status
    .toString("utf8")
    .split("\n")
    .map((line) => line.split(" "));
  const said = (word: string): string[] | undefined => words.find(([, first]) => first === word);
  const key = said("NO_PUBKEY")?.[2] ?? said("ERRSIG")?.[2];
  if (said("VALIDSIG") !== undefined && said("GOODSIG") !== undefined && said("BADSIG") === undefined) return;
  const why =
    said("BADSIG") !== undefined
      ? "it was not made for this list"
      : said("EXPKEYSIG") !== undefined || said("REVKEYSIG") !== undefined
        ? "its key has expired or was revoked"
        : key === undefined
          ? lastWords || "there is none in the file"
          : `its key ${key} is not in the keyring`;
  throw new Fault("corrupt", `${attempted}: ${why}`, {
    hint: "take list, signature and keyring from the publisher, all of the same release",
  });
}

const armorBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/** gpgv reads keyrings as bytes only; published keys are often text. */
function binaryOf(keyring: Buffer): Buffer {
  const text = keyring.toString("latin1");
  if (!text.includes(armorBegin)) return keyring;
  const blocks = text.split(armorBegin).slice(1);
  return Buffer.concat(
    blocks.map((block) => {
      const body = block.slice(0, block.indexOf("-----END")).replaceAll("\r", "");
      // Headers end with an empty line; a line that begins with `=` is the checksum.
      const lines = body.slice(body.indexOf("\n\n") + 2).split("\n");
      return Buffer.from(lines.filter((line) => !line.startsWith("=")).join(""), "base64");
    }),
  );
}
