import type { Readable } from "node:stream";
import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import type { Clock } from "../../base/call.ts";
import { readLines } from "../../client/line.ts";
import { Fault } from "../../base/fault.ts";
import { decode, parseJson } from "./message.ts";

/** A message, or a line of a stream. Files and archives are streams, so nothing honest comes near. */
export const messageLimitBytes = 4 * 2 ** 20;

/** A unary request's body must be here within this time; a stream may take for ever. */
const bodyLimitMs = 30_000;

/** The body of a unary request as text; empty when there is none. */
export async function readBody(request: Readable, clock: Clock): Promise<string> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const cancel = clock.after(bodyLimitMs, () =>
    reject(new Fault("timeout", `the request's body did not come within ${bodyLimitMs} ms`)),
  );
  try {
    return await Promise.race([readText(request), late]);
  } finally {
    cancel();
  }
}

async function readText(request: Readable): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of bytes(request)) {
    length += chunk.length;
    if (length > messageLimitBytes) {
      throw new Fault("exhausted", `the request is larger than ${messageLimitBytes} bytes`, {
        hint: "send files with UploadFiles",
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/**
 * The messages of a client's stream: lines of JSON, or plain bytes where the message is a chunk, after the message that
 * introduces them.
 */
export async function* readMessages(
  request: Readable,
  method: DescMethod,
  plain: boolean,
  first?: Message,
): AsyncGenerator<Message> {
  if (plain) {
    if (first !== undefined) yield first;
    for await (const chunk of bytes(request)) yield create(method.input, { chunk });
    return;
  }
  for await (const line of readLines(bytes(request), messageLimitBytes)) {
    if (line.trim() !== "") yield decode(method.input, parseJson(line), {});
  }
}

/** Chunks as they come. A handler that leaves early must not close the connection on which its answer is still to go. */
function bytes(request: Readable): AsyncIterable<Uint8Array> {
  return request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
}
