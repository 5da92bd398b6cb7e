import { chmod, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";
import { readSmallFile, removeTree } from "../../host/file.ts";
import { startConfined } from "./confined.ts";

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
  const attempted = "verify the signature of the list of checksums";
  const keyring = binaryOf(await readSmallFile(keyringPath, maxKeyringBytes));
  // Readable by nobody, as whom gpgv runs, and written by us alone.
  const directory = await mkdtemp(join(tmpdir(), "croft-signature-"));
  try {
    const paths = {
      data: join(directory, "data"),
      signature: join(directory, "signature"),
      keys: join(directory, "keys"),
    };
    await chmod(directory, 0o755);
    await writeFile(paths.data, data, { mode: 0o644 });
    await writeFile(paths.signature, signature, { mode: 0o644 });
    await writeFile(paths.keys, keyring, { mode: 0o644 });
    const argv = ["gpgv", "--status-fd", "1", "--homedir", directory, "--keyring", paths.keys, paths.signature, "-"];
    const gpgv = await startConfined(argv, paths.data, bounds, call);
    const status = await gpgv.stdout.setEncoding("utf8").reduce((text: string, chunk: string) => text + chunk, "");
    const { lastWords } = await gpgv.ended;
    refuseUnlessGood(status, lastWords, attempted);
  } catch (error) {
    throw hostFault(error, attempted);
  } finally {
    await removeTree(directory);
  }
}

/** `status` is what gpgv says for programs: one line, `[GNUPG:] WORD …`, for each thing it found. */
function refuseUnlessGood(status: string, lastWords: string, attempted: string): void {
  const words = status.split("\n").map((line) => line.split(" "));
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
