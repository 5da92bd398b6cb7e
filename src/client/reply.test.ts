import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { type Head, Reply } from "./reply.ts";

interface Read {
  readonly head: Head | undefined;
  readonly content: string;
  readonly complete: boolean;
}

/** Reads an answer that comes in these pieces; `closed`: then the connection ends. */
function read(pieces: readonly string[], closed = false): Read {
  let head: Head | undefined;
  let content = "";
  const reply = new Reply(
    (found) => {
      assert.equal(head, undefined, "one head");
      head = found;
    },
    (bytes) => (content += Buffer.from(bytes).toString("latin1")),
  );
  for (const piece of pieces) reply.feed(Buffer.from(piece, "latin1"));
  if (closed) reply.close();
  return { head, content, complete: reply.complete };
}

/** `text` in pieces that begin at these places. */
function cut(text: string, places: readonly number[]): string[] {
  const at = [...new Set(places.map((place) => place % text.length))].sort((left, right) => left - right);
  return [0, ...at].map((from, index) => text.slice(from, at[index] ?? text.length));
}

const framed: Readonly<Record<string, (content: readonly string[]) => string>> = {
  length: (content) => `content-length: ${content.join("").length}\r\n\r\n${content.join("")}`,
  chunks: (content) => {
    const chunks = content.filter((piece) => piece !== "").map((piece) => chunk(piece));
    return `Transfer-Encoding: chunked\r\n\r\n${chunks.join("")}0\r\nx-trailer: there\r\n\r\n`;
  },
  close: (content) => `x-other: \r\n\r\n${content.join("")}`,
};

function chunk(piece: string): string {
  return `${piece.length.toString(16).toUpperCase()};ext=1\r\n${piece}\r\n`;
}

const pieces = fc.array(fc.string({ unit: "binary-ascii", maxLength: 40 }), { maxLength: 6 });
const places = fc.array(fc.nat(1000), { maxLength: 20 });

for (const [how, frame] of Object.entries(framed)) {
  test(`an answer framed by ${how} is read whole, wherever it is cut`, () => {
    fc.assert(
      fc.property(pieces, places, fc.boolean(), (content, where, interim) => {
        const before = interim ? "HTTP/1.1 100 Continue\r\n\r\n" : "";
        const text = `${before}HTTP/1.1 404 Not Found\r\nA: b:c\r\n${frame(content)}`;
        const answer = read(cut(text, where), how === "close");
        assert.equal(answer.head?.status, 404);
        assert.equal(answer.head.headers.get("a"), "b:c");
        assert.equal(answer.content, content.join(""));
        assert.equal(answer.complete, true);
      }),
    );
  });
}

test("an answer that breaks off is not complete", () => {
  for (const how of ["length", "chunks"] as const) {
    const text = `HTTP/1.1 200 OK\r\n${framed[how]?.(["some", "thing"])}`;
    for (let length = 0; length < text.length; length += 1) {
      assert.equal(read([text.slice(0, length)], true).complete, false, `${how}, ${length} bytes`);
    }
  }
});

test("what is no answer is refused", () => {
  for (const text of [
    "SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
    `HTTP/1.1 200 OK\r\na: ${"b".repeat(100_000)}`,
  ]) {
    assert.throws(() => read([text]), text.slice(0, 40));
  }
});

test("an answer without content is complete with its head", () => {
  assert.equal(read(["HTTP/1.1 204 No Content\r\n\r\n"]).complete, true);
  assert.equal(read(["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).complete, true);
});
