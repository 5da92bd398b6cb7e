/**
 * What a relay and the watcher tell each other over a socket: pieces, each of a kind and with a length. From the relay: the
 * task first, then input, its end, and sizes of the terminal. From the watcher: output, errors, and how it ended.
 */
export const pieceKinds = ["task", "input", "input-end", "size", "output", "error", "ended", "failed"] as const;
export type PieceKind = (typeof pieceKinds)[number];

export interface Piece {
  readonly kind: PieceKind;
  readonly bytes: Buffer;
}

const headBytes = 5;
/** Nobody who keeps to this sends a longer one. */
const maxBytes = 2 ** 22;

export function pieceOf(kind: PieceKind, content: Uint8Array | string = ""): Buffer {
  const bytes = Buffer.from(content as Uint8Array);
  const head = Buffer.alloc(headBytes);
  head.writeUInt8(pieceKinds.indexOf(kind), 0);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** Puts pieces together again, however they were cut on the way. */
export class PieceReader {
  #rest = Buffer.alloc(0);

  /** The pieces that are whole by now. Throws on what cannot be one. */
  take(bytes: Uint8Array): readonly Piece[] {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const pieces: Piece[] = [];
    while (this.#rest.length >= headBytes) {
      const kind = pieceKinds[this.#rest.readUInt8(0)];
      const length = this.#rest.readUInt32BE(1);
      if (kind === undefined || length > maxBytes)
        throw new Error("a relay and its watcher do not understand each other");
      if (this.#rest.length < headBytes + length) break;
      pieces.push({ kind, bytes: this.#rest.subarray(headBytes, headBytes + length) });
      this.#rest = this.#rest.subarray(headBytes + length);
    }
    return pieces;
  }
}
