import { Fault } from "../../base/fault.ts";

export type Algorithm = "sha256" | "sha512";

/** `sha256:` or `sha512:` and so many hex digits. */
export interface Checksum {
  readonly algorithm: Algorithm;
  readonly hex: string;
}

const hexDigits: Readonly<Record<Algorithm, number>> = { sha256: 64, sha512: 128 };

export function parseChecksum(text: string): Checksum {
  const [, name = "", hex = ""] = /^(sha256|sha512):([0-9a-fA-F]+)$/.exec(text.trim()) ?? [];
  const algorithm = name === "sha512" ? "sha512" : "sha256";
  if (hex.length === hexDigits[algorithm]) return { algorithm, hex: hex.toLowerCase() };
  throw new Fault("invalid", `"${text}" is not a checksum`, {
    hint: "write it as sha256: and 64 hex digits, or sha512: and 128",
  });
}

export function formatChecksum({ algorithm, hex }: Checksum): string {
  return `${algorithm}:${hex}`;
}

/**
 * The checksum of a file in a list as publishers keep it: lines of `sha256sum` (`<hex>  name`, `<hex> *name`) or of BSD
 * (`SHA256 (name) = <hex>`), whatever else stands between them. Where a list has several, of both kinds, the strongest.
 */
export function findChecksum(list: string, filename: string): Checksum {
  const found: Checksum[] = [];
  for (const line of list.split(/\r?\n/)) {
    const entry = parseLine(line);
    if (entry?.name === filename) found.push(entry);
  }
  const strongest = found.find(({ algorithm }) => algorithm === "sha512") ?? found[0];
  if (strongest === undefined) {
    throw new Fault("not-found", `the list of checksums does not name ${filename}`, {
      hint: "the list has to be the one of that very file and release",
    });
  }
  const { algorithm, hex } = strongest;
  if (found.some((other) => other.algorithm === algorithm && other.hex !== hex)) {
    throw new Fault("corrupt", `the list of checksums has two different ones for ${filename}`);
  }
  return { algorithm, hex };
}

function parseLine(line: string): (Checksum & { readonly name: string }) | undefined {
  const plain = /^([0-9a-fA-F]{64}|[0-9a-fA-F]{128}) [ *](.+)$/.exec(line);
  const tagged = /^SHA(256|512) \((.+)\) = ([0-9a-fA-F]+)$/.exec(line);
  const hex = (plain?.[1] ?? tagged?.[3])?.toLowerCase();
  const name = (plain?.[2] ?? tagged?.[2])?.replace(/^\.\//, "");
  if (hex === undefined || name === undefined) return undefined;
  const bits = tagged?.[1] ?? String(hex.length * 4);
  const algorithm = bits === "512" ? "sha512" : "sha256";
  if (hex.length !== hexDigits[algorithm]) return undefined;
  return { algorithm, hex, name };
}
