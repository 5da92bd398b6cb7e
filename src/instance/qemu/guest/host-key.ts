import { generateKeyPairSync } from "node:crypto";

/** A key by which a guest's dropbear is known: made for each run. */
export interface HostKey {
  /** As dropbear keeps it on disk. */
  readonly dropbear: Buffer;
  /** As it goes over the wire: what whoever connects compares with. */
  readonly publicBlob: Buffer;
}

const algorithm = "ssh-ed25519";

export function makeHostKey(): HostKey {
  const { privateKey } = generateKeyPairSync("ed25519");
  const jwk = privateKey.export({ format: "jwk" });
  const seed = Buffer.from(jwk.d ?? "", "base64url");
  const point = Buffer.from(jwk.x ?? "", "base64url");
  return {
    dropbear: Buffer.concat([sized(Buffer.from(algorithm)), sized(Buffer.concat([seed, point]))]),
    publicBlob: Buffer.concat([sized(Buffer.from(algorithm)), sized(point)]),
  };
}

/** As SSH writes a string: its length in four bytes, and it. */
function sized(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
