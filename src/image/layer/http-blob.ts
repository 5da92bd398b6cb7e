import { request as requestHttp, type IncomingMessage } from "node:http";
import { request as requestHttps } from "node:https";
import { throwIfCancelled, type Call } from "../../base/call.ts";
import { Fault, type Reason } from "../../base/fault.ts";
import type { HttpSource } from "./blob-source.ts";
import { followable } from "../registry/endpoint.ts";

/** Connections in a row that may fail without bringing `leastBytes`. */
const maxBarrenAttempts = 5;
const firstPauseMs = 200;
const maxRedirects = 5;
/** A connection that stays silent for so long is taken for lost, and one whose answer has not begun by then. */
const silenceMs = 60_000;
/**
 * So much has to come for each minute that we wait, or a server could hold us for years with a byte now and then. A modem
 * of 56 kbit/s brings six times as much, enough for the four layers that are fetched at once.
 */
const leastBytes = 64 * 2 ** 10;
const patienceMs = 60_000;

const statusReasons: Readonly<Record<number, Reason>> = {
  401: "unauthenticated",
  403: "forbidden",
  404: "not-found",
  416: "corrupt",
};

/** A server or a connection that may do better the next time. */
class Dropped extends Error {}

/** For downloads that are not a registry's. */
export interface HttpOptions {
  /** The byte to begin with; those before it are there already. */
  readonly from?: number;
  /** Where a redirect may lead, as a check that throws. Default: where a registry may send us. */
  readonly follow?: (location: string, from: URL, asked: URL) => URL;
  /** Told how large the whole is, once a server says so. */
  readonly onTotal?: (sizeBytes: number) => void;
}

type Following = HttpOptions & Required<Pick<HttpOptions, "follow">>;

const registryOptions: Following = {
  follow: (location, from, asked) => followable(location, from, asked, "redirect"),
};

/**
 * The bytes of a blob over HTTP. A connection that is lost in the middle goes on where it stopped, by a range request, or by
 * skipping what is there already if the server does not know ranges.
 *
 * @throws Fault `unavailable` after five attempts in a row that brought less than 64 KiB, or by the status: `unauthenticated`,
 *   `forbidden`, `not-found`, otherwise `failed`.
 */
export async function* openHttpBlob(
  source: HttpSource,
  call: Call,
  options: HttpOptions = {},
): AsyncGenerator<Uint8Array> {
  let received = options.from ?? 0;
  let barren = 0;
  for (;;) {
    const before = received;
    try {
      for await (const chunk of receiveFrom(source, received, { ...registryOptions, ...options }, call)) {
        received += chunk.length;
        yield chunk;
      }
      return;
    } catch (thrown) {
      throwIfCancelled(call);
      if (!(thrown instanceof Dropped)) throw thrown;
      barren = received - before >= leastBytes ? 0 : barren + 1;
      if (barren === maxBarrenAttempts) {
        throw new Fault("unavailable", `download ${source.url}: ${thrown.message}, ${barren} times in a row`, {
          cause: thrown,
          hint: "see whether that server can be reached from this machine, and try again",
        });
      }
      await call.clock.sleep(firstPauseMs * 2 ** barren, call.signal);
    }
  }
}

/** What one connection brings, from byte `from` on. */
async function* receiveFrom(
  source: HttpSource,
  from: number,
  options: Following,
  call: Call,
): AsyncGenerator<Uint8Array> {
  const headers: Record<string, string> = { "accept-encoding": "identity", ...(await source.headers()) };
  if (from > 0) headers["range"] = `bytes=${from}-`;
  const asked = new URL(source.url);
  const response = await respond(asked, asked, headers, options, call, maxRedirects);
  let toSkip = skippedBytes(response, source.url, from);
  const rest = Number(response.headers["content-length"]);
  if (Number.isSafeInteger(rest)) options.onTotal?.(rest + from - toSkip);
  try {
    for await (const chunk of paced(response, call)) {
      const fresh = toSkip === 0 ? chunk : chunk.subarray(toSkip);
      toSkip -= chunk.length - fresh.length;
      if (fresh.length > 0) yield fresh;
    }
  } catch (thrown) {
    throw dropped(thrown);
  } finally {
    response.destroy();
  }
}

/** The response's bytes, as long as they do not only drip. The time that the reader takes for them does not count. */
async function* paced(response: AsyncIterable<Buffer>, { clock }: Call): AsyncGenerator<Buffer> {
  let bytes = 0;
  let waitedMs = 0;
  let sinceMs = clock.monotonicMs();
  for await (const chunk of response) {
    bytes += chunk.length;
    waitedMs += clock.monotonicMs() - sinceMs;
    if (bytes >= leastBytes) bytes = waitedMs = 0;
    else if (waitedMs >= patienceMs) throw new Dropped(`only ${bytes} bytes came in ${Math.round(waitedMs / 1000)} s`);
    yield chunk;
    sinceMs = clock.monotonicMs();
  }
}

/** How much of the response is there already; checks that it is the part which was asked for. */
function skippedBytes(response: IncomingMessage, url: string, from: number): number {
  if (response.statusCode !== 206) return from;
  const range = response.headers["content-range"] ?? "";
  if (!range.startsWith(`bytes ${from}-`)) {
    response.destroy();
    throw new Fault("corrupt", `download ${url}: asked for bytes from ${from} on, the server sent "${range}"`);
  }
  return 0;
}

/** The response that has the bytes, redirects followed as far as `asked`, the registry's own address, may send us. */
async function respond(
  asked: URL,
  url: URL,
  headers: Readonly<Record<string, string>>,
  options: Following,
  call: Call,
  redirects: number,
): Promise<IncomingMessage> {
  const response = await send(url, headers, call);
  const status = response.statusCode ?? 0;
  if (status === 200 || status === 206) return response;
  response.destroy();
  const { location } = response.headers;
  if (status >= 300 && status < 400 && location !== undefined) {
    if (redirects === 0) throw new Fault("failed", `download ${url.href}: redirected more than ${maxRedirects} times`);
    const next = options.follow(location, url, asked);
    return respond(
      asked,
      next,
      next.origin === url.origin ? headers : withoutCredentials(headers),
      options,
      call,
      redirects - 1,
    );
  }
  const message = `download ${url.origin}${url.pathname}: the server answered ${status}`;
  if (status === 429 || status >= 500) throw new Dropped(message);
  throw new Fault(statusReasons[status] ?? "failed", message);
}

function send(url: URL, headers: Readonly<Record<string, string>>, call: Call): Promise<IncomingMessage> {
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new Fault("invalid", `download ${url.href}: only http and https are known`);
  }
  const request = url.protocol === "https:" ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const sent = request(url, { headers, signal: call.signal }, resolve);
    const giveUp = (): void => void sent.destroy(new Error(`silent for ${silenceMs} ms`));
    sent.setTimeout(silenceMs, giveUp);
    // A head that drips is never silent.
    const patience = call.clock.after(silenceMs, giveUp);
    sent.once("response", patience).once("close", patience);
    sent.on("error", (error) => reject(dropped(error)));
    sent.end();
  });
}

/** A failed connection as something to try again; what is not about the connection stays as it is. */
function dropped(thrown: unknown): unknown {
  if (thrown instanceof Fault || thrown instanceof Dropped) return thrown;
  return new Dropped(thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown });
}

function withoutCredentials(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => !["authorization", "cookie"].includes(name.toLowerCase())),
  );
}
