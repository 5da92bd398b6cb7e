import { type IncomingHttpHeaders, type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";

/** HTTP without opinions: no redirects, no retries, no credentials. What is decided above is in `client.ts`. */

export interface Request {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** With `content-length` among the headers. */
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
}

/** The body must be read to its end (`readBody`) or destroyed, otherwise its connection stays taken. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: IncomingMessage;
}

/** How long a server may take until the first line of its answer, and between two pieces of it. */
const silenceMs = 30_000;
/** How long the body of an answer may take in all: they are small, and a byte now and then is no answer. */
const bodyMs = 60_000;

/** Sends a request and resolves with the head of its answer. Network failures are Faults: `unavailable`, `timeout`. */
export async function send(request: Request, call: Call): Promise<Answer> {
  throwIfCancelled(call);
  const attempted = `${request.method} ${request.url.origin}${request.url.pathname}`;
  const options = {
    method: request.method,
    headers: { "user-agent": "croft", ...request.headers },
    signal: call.signal,
  };
  const outgoing = (request.url.protocol === "https:" ? requestHttps : requestHttp)(request.url, options);
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const silence = silenceWatch(call, () => outgoing.destroy(silent(attempted)));
  outgoing.on("response", (incoming) => {
    // A late error has no listener of its own when the body was given up.
    incoming.on("error", () => {});
    resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: incoming });
  });
  outgoing.on("error", reject);
  try {
    if (request.body === undefined || request.body instanceof Uint8Array) outgoing.end(request.body);
    else {
      // An answer may come before all is sent, an error mostly; then the rest is not sent.
      const body = watched(request.body, silence.touch);
      pipeline(Readable.from(body), outgoing).catch((error: unknown) => reject(error));
    }
    return await promise;
  } catch (error) {
    throwIfCancelled(call);
    throw networkFault(error, attempted);
  } finally {
    silence.stop();
  }
}

/**
 * The whole body of an answer. More than `maxBytes` is `exhausted`, one that is cut short `unavailable`, one that takes
 * longer than a minute `timeout`.
 */
export async function readBody(answer: Answer, maxBytes: number, subject: string, call: Call): Promise<Buffer> {
  const attempted = `read ${subject}`;
  const { body } = answer;
  const silence = silenceWatch(call, () => body.destroy(silent(attempted)));
  const stopWaiting = call.clock.after(bodyMs, () => body.destroy(endless(attempted)));
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      silence.touch();
      chunks.push(chunk);
      sizeBytes += chunk.length;
      if (sizeBytes > maxBytes) throw new Fault("exhausted", `${subject} is larger than ${maxBytes} bytes`);
    }
  } catch (error) {
    body.destroy();
    throwIfCancelled(call);
    throw networkFault(error, attempted);
  } finally {
    silence.stop();
    stopWaiting();
  }
  return Buffer.concat(chunks);
}

/** The first value of a header that may come several times. */
export function header(answer: Answer, name: string): string | undefined {
  const value = answer.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

const resetCodes: ReadonlySet<string> = new Set([
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EAI_AGAIN",
  "ECONNABORTED",
  "ERR_STREAM_PREMATURE_CLOSE",
]);

/** A failure of the network as a Fault. `detail.retry` says that the same again may well succeed. */
export function networkFault(error: unknown, attempted: string): Fault {
  if (error instanceof Fault) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const message = error instanceof Error ? error.message : String(error);
  const said = code !== "" && !message.includes(code) ? `${message} (${code})` : message;
  const retry = resetCodes.has(code) || message === "aborted";
  const hint = networkHint(code);
  return new Fault("unavailable", `${attempted}: ${said}`, {
    cause: error,
    detail: retry ? { retry: "soon" } : {},
    ...(hint === undefined ? {} : { hint }),
  });
}

function networkHint(code: string): string | undefined {
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "check the registry's name and this machine's name servers";
  if (code === "ECONNREFUSED") return "check that the registry runs and listens on that port";
  if (code === "EPROTO" || code === "ERR_SSL_WRONG_VERSION_NUMBER" || code === "ERR_SSL_PACKET_LENGTH_TOO_LONG") {
    return "the registry does not speak TLS; without TLS only registries on this machine's loopback addresses are spoken to";
  }
  if (/CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ISSUER/.test(code)) {
    return "add the registry's certificate authority to this machine's (update-ca-certificates), and restart croftd";
  }
  return undefined;
}

function silent(attempted: string): Fault {
  return new Fault("timeout", `${attempted}: nothing came for ${silenceMs / 1000} s`, { detail: { retry: "soon" } });
}

function endless(attempted: string): Fault {
  return new Fault("timeout", `${attempted}: not done within ${bodyMs} ms`, { detail: { retry: "soon" } });
}

interface SilenceWatch {
  readonly touch: () => void;
  readonly stop: () => void;
}

/** Calls `act` once nothing was touched for `silenceMs`. */
function silenceWatch(call: Call, act: () => void): SilenceWatch {
  let cancel = call.clock.after(silenceMs, act);
  return {
    touch() {
      cancel();
      cancel = call.clock.after(silenceMs, act);
    },
    stop: () => cancel(),
  };
}

async function* watched(source: AsyncIterable<Uint8Array>, touch: () => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    touch();
    yield chunk;
  }
}
