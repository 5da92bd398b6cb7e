import { routes, type CallOptions, type Duplex, type Methods } from "../gen/client.ts";
import { Exchanger, faultOf, type ErrorBody, type Exchange, type ExchangerOptions } from "./exchange.ts";
import { readLines } from "./line.ts";
import type { Target } from "./target.ts";

/** The only door to the daemon for the command line and the dashboard. Every method throws `Fault`. */
export type Client = Methods;

/**
 * A client of the daemon at `target`. Connects when a method is called, once for each call.
 *
 * Methods come from the generated table of routes; this file knows how to speak, not what there is to say.
 */
export function connect(target: Target, options: ExchangerOptions = {}): Client {
  const exchanger = new Exchanger(target, options);
  const nouns = Object.entries<Record<string, Route>>(routes).map(([noun, methods]) => {
    const bound = Object.entries(methods).map(([name, route]) => [name, method(`${noun}.${name}`, route, exchanger)]);
    return [noun, Object.fromEntries(bound)];
  });
  return Object.fromEntries(nouns) as Client;
}

interface Route {
  readonly kind: "unary" | "server_streaming" | "client_streaming" | "bidi_streaming";
  readonly verb: string;
  readonly path: string;
  readonly body: boolean;
  readonly bytes?: true;
  /** What is sent is introduced by fields of its own. */
  readonly introduced?: true;
}

type Json = Readonly<Record<string, unknown>>;

/** Longer than any line the daemon sends: its messages are at most 4 MiB. */
const lineLimitBytes = 16 * 2 ** 20;

function method(attempted: string, route: Route, exchanger: Exchanger): unknown {
  switch (route.kind) {
    case "unary":
      return (request: Json = {}, options: CallOptions = {}) => unary(attempted, route, request, options, exchanger);
    case "server_streaming":
      return (request: Json = {}, options: CallOptions = {}) =>
        serverStream(attempted, route, request, options, exchanger);
    case "client_streaming":
      if (route.introduced === true) {
        return (request: Json, chunks: AsyncIterable<Uint8Array>, options: CallOptions = {}) =>
          upload(attempted, { ...route, path: route.path + query(request) }, chunks, options, exchanger);
      }
      return (chunks: AsyncIterable<Uint8Array>, options: CallOptions = {}) =>
        upload(attempted, route, chunks, options, exchanger);
    case "bidi_streaming":
      return (options: CallOptions = {}) => duplex(attempted, route, options, exchanger);
  }
}

async function unary(
  attempted: string,
  route: Route,
  request: Json,
  options: CallOptions,
  exchanger: Exchanger,
): Promise<Json> {
  return await wholeAnswer(open(attempted, route, request, options, exchanger));
}

async function* serverStream(
  attempted: string,
  route: Route,
  request: Json,
  options: CallOptions,
  exchanger: Exchanger,
): AsyncGenerator {
  const exchange = open(attempted, route, request, options, exchanger);
  yield* route.bytes === true ? exchange.body() : results(exchange);
}

async function upload(
  attempted: string,
  { verb, path }: Route,
  chunks: AsyncIterable<Uint8Array>,
  options: CallOptions,
  exchanger: Exchanger,
): Promise<Json> {
  const contentType = "application/octet-stream";
  const exchange = exchanger.begin({ verb, path, isStream: true, contentType, attempted, signal: options.signal });
  let refused = false;
  void exchange.isRefused.then((isRefused) => (refused = isRefused));
  try {
    for await (const chunk of chunks) {
      // The daemon may refuse before it has read everything: sending the rest would be for nothing.
      if (refused) break;
      await exchange.send(chunk);
    }
    exchange.end();
    return await wholeAnswer(exchange);
  } finally {
    exchange.destroy();
  }
}

function duplex(
  attempted: string,
  { verb, path }: Route,
  options: CallOptions,
  exchanger: Exchanger,
): Duplex<Json, unknown> {
  const contentType = "application/x-ndjson";
  const exchange = exchanger.begin({ verb, path, isStream: true, contentType, attempted, signal: options.signal });
  return {
    async send(message) {
      await exchange.send(Buffer.from(`${JSON.stringify(message)}\n`));
    },
    end() {
      exchange.end();
    },
    [Symbol.asyncIterator]: () => results(exchange),
  };
}

function open(attempted: string, route: Route, request: Json, options: CallOptions, exchanger: Exchanger): Exchange {
  const left = { ...request };
  const path = route.path.replace(/\{(\w+)\}/g, (_, field: string) => {
    const value = left[field];
    delete left[field];
    return encodeURIComponent(typeof value === "string" ? value : "");
  });
  return exchanger.begin({
    verb: route.verb,
    path: route.body ? path : path + query(left),
    attempted,
    signal: options.signal,
    ...(route.body && { content: JSON.stringify(left), contentType: "application/json" }),
    ...(route.bytes === true && { accept: "application/octet-stream" }),
  });
}

function query(request: Json): string {
  const parameters = new URLSearchParams();
  const add = (name: string, value: unknown): void => {
    if (value === undefined || value === null) return;
    if (Array.isArray(value)) value.forEach((item) => add(name, item));
    else if (typeof value === "object") Object.entries(value).forEach(([key, member]) => add(`${name}.${key}`, member));
    else parameters.append(name, `${value as string | number | boolean}`);
  };
  Object.entries(request).forEach(([name, value]) => add(name, value));
  return parameters.size === 0 ? "" : `?${parameters.toString()}`;
}

async function wholeAnswer(exchange: Exchange): Promise<Json> {
  const chunks = await Array.fromAsync(exchange.body());
  return JSON.parse(Buffer.concat(chunks).toString("utf8")) as Json;
}

async function* results(exchange: Exchange): AsyncGenerator {
  for await (const line of readLines(exchange.body(), lineLimitBytes)) {
    const message = JSON.parse(line) as { result: unknown } | { error: ErrorBody };
    if ("error" in message) throw faultOf(message.error);
    yield message.result;
  }
}
