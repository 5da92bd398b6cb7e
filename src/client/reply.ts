/** The first lines of an HTTP answer. */
export interface Head {
  readonly status: number;
  /** By their names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

/** A head is not longer than this. */
const headLimitBytes = 64 * 1024;

/**
 * Reads one answer of HTTP/1.1 as its bytes come: the head, then the content, however it is framed. Throws an Error when
 * it is none: something else answers. Smaller than a whole HTTP client, and there within a fraction of its time.
 */
export class Reply {
  readonly #onHead: (head: Head) => void;
  readonly #onContent: (bytes: Uint8Array) => void;
  #state: "head" | "content" | "chunk-size" | "chunk" | "chunk-end" | "trailer" | "until-close" | "done" = "head";
  /** Of a line that is not complete. */
  #begun: Buffer = Buffer.alloc(0);
  /** Bytes of content or of its chunk that are still to come. */
  #left = 0;

  constructor(onHead: (head: Head) => void, onContent: (bytes: Uint8Array) => void) {
    this.#onHead = onHead;
    this.#onContent = onContent;
  }

  /** All of it is here. */
  get complete(): boolean {
    return this.#state === "done";
  }

  feed(bytes: Uint8Array): void {
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    while (rest.length > 0 && this.#state !== "done") rest = this.#step(rest);
  }

  /** The other side has closed the connection: the end of an answer that says no length, and of no other. */
  close(): void {
    if (this.#state === "until-close") this.#state = "done";
  }

  /** Takes a part of `bytes` and returns the rest. */
  #step(bytes: Buffer): Buffer {
    switch (this.#state) {
      case "head":
        return this.#through(bytes, "\r\n\r\n", (text) => this.#begin(text));
      case "chunk-size":
        return this.#through(bytes, "\r\n", (line) => {
          this.#left = hexNumber(line.split(";")[0] ?? "");
          this.#state = this.#left === 0 ? "trailer" : "chunk";
        });
      case "chunk-end":
        return this.#through(bytes, "\r\n", () => (this.#state = "chunk-size"));
      case "trailer":
        return this.#through(bytes, "\r\n", (line) => {
          if (line === "") this.#state = "done";
        });
      case "until-close":
        this.#onContent(bytes);
        return Buffer.alloc(0);
      default: {
        const part = bytes.subarray(0, this.#left);
        this.#left -= part.length;
        this.#onContent(part);
        if (this.#left === 0) this.#state = this.#state === "chunk" ? "chunk-end" : "done";
        return bytes.subarray(part.length);
      }
    }
  }

  /** Waits for `end` and gives `take` what is before it. */
  #through(bytes: Buffer, end: string, take: (text: string) => void): Buffer {
    const all = this.#begun.length === 0 ? bytes : Buffer.concat([this.#begun, bytes]);
    const at = all.indexOf(end, 0, "latin1");
    if (at > headLimitBytes || (at === -1 && all.length > headLimitBytes)) throw new Error("a line without end");
    if (at === -1) {
      this.#begun = Buffer.from(all);
      return Buffer.alloc(0);
    }
    this.#begun = Buffer.alloc(0);
    take(all.toString("latin1", 0, at));
    return all.subarray(at + end.length);
  }

  #begin(text: string): void {
    const [first = "", ...lines] = text.split("\r\n");
    const status = Number(/^HTTP\/1\.[01] ([1-5][0-9]{2})(?: |$)/.exec(first)?.[1]);
    if (Number.isNaN(status)) throw new Error("not an answer of HTTP/1.1");
    // What comes before the answer proper, such as 100.
    if (status < 200) return;
    const headers = new Map(
      lines.map((line) => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }),
    );
    const length = headers.get("content-length");
    if (/\bchunked$/i.test(headers.get("transfer-encoding") ?? "")) this.#state = "chunk-size";
    else if (length === undefined) this.#state = status === 204 || status === 304 ? "done" : "until-close";
    else {
      if (!/^[0-9]{1,15}$/.test(length)) throw new Error("a length that is no number");
      this.#left = Number(length);
      this.#state = this.#left === 0 ? "done" : "content";
    }
    this.#onHead({ status, headers });
  }
}

function hexNumber(text: string): number {
  if (!/^[0-9a-f]{1,12}$/i.test(text.trim())) throw new Error("a length that is no number");
  return Number.parseInt(text, 16);
}
