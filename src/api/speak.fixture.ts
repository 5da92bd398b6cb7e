import { request as httpRequest } from "node:http";
import { connect as connectSocket } from "node:net";
import { Readable } from "node:stream";
import {
  fromJson,
  toJson,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  type JsonValue,
  type Message,
} from "@bufbuild/protobuf";
import { ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { isFault } from "../base/fault.ts";
import { connect } from "../client/client.ts";
import type { Duplex } from "../client/message.ts";
import type { Target } from "../client/target.ts";
import { shortName } from "./document/model.ts";
import { FaultSchema } from "../gen/croft/v1/fault_pb.ts";
import { bindingOf, isIntroduced } from "./rest/binding.ts";
import { statuses } from "./status.ts";

/** Where a test's API listens. */
export type Place =
  | { readonly kind: "unix"; readonly socketPath: string }
  | { readonly kind: "tcp"; readonly port: number; readonly token: string | undefined };

/** What came back: the answers, then the Fault if it ended with one. */
export interface Heard {
  readonly answers: readonly JsonValue[];
  readonly fault?: {
    readonly reason: string;
    readonly message: string;
    readonly hint: string;
    readonly detail: object;
  };
  /** The protocol's own code, already compared with the table. */
}

/** Says `said` to a method by REST, the way any HTTP client would, and returns what it hears. */
export async function speakRest(place: Place, method: DescMethod, said: readonly object[]): Promise<Heard> {
  const { verb, template, body } = bindingOf(method);
  const streamsIn = method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming";
  const [first = {}] = said as readonly Record<string, unknown>[];
  const left = { ...first };
  const path = template.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = encodeURIComponent(String(left[name]));
    delete left[name];
    return value;
  });
  const sent = streamsIn
    ? said.map((message) => `${JSON.stringify(message)}\n`).join("")
    : body
      ? JSON.stringify(left)
      : undefined;
  const { status, text } = await exchange(place, verb, body ? path : path + queryOf(left), sent);
  const lines = text.split("\n").filter((line) => line !== "");
  const streamsOut = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
  if (status !== 200) {
    const { error } = JSON.parse(text) as { error: NonNullable<Heard["fault"]> & { code: number } };
    return { answers: [], fault: checked(error, error.code, status) };
  }
  if (!streamsOut) return { answers: [JSON.parse(text) as JsonValue] };
  const messages = lines.map(
    (line) => JSON.parse(line) as { result: JsonValue } & { error: NonNullable<Heard["fault"]> & { code: number } },
  );
  const answers = messages.filter((message) => "result" in message).map(({ result }) => result);
  const error = messages.at(-1)?.error;
  return error === undefined ? { answers } : { answers, fault: checked(error, error.code, undefined) };
}

/** Says the same by Croft's own client. */
export async function speakClient(place: Place, method: DescMethod, said: readonly object[]): Promise<Heard> {
  const target: Target =
    place.kind === "unix"
      ? place
      : { kind: "tcp", url: new URL(`http://127.0.0.1:${place.port}`), token: place.token ?? "" };
  // By name, as no caller in Croft does: the test walks all methods, and the types are what the compiler is for.
  const nouns = connect(target) as unknown as Record<string, Record<string, (...args: unknown[]) => unknown>>;
  const [, noun = ""] = bindingOf(method.parent.methods[0] ?? method)
    .template.split(/[/:]/)
    .slice(1);
  const call = nouns[noun]?.[shortName(method, method.parent)];
  if (call === undefined) throw new Error(`the client has no ${noun} method for ${method.name}`);
  const answers: JsonValue[] = [];
  const hear = async (stream: AsyncIterable<JsonValue | Uint8Array>): Promise<void> => {
    for await (const answer of stream) {
      answers.push(answer instanceof Uint8Array ? { chunk: Buffer.from(answer).toString("base64") } : answer);
    }
  };
  try {
    switch (method.methodKind) {
      case "unary":
        answers.push((await call(said[0])) as JsonValue);
        break;
      case "server_streaming":
        await hear(call(said[0]) as AsyncIterable<JsonValue>);
        break;
      case "client_streaming": {
        const chunks = (said as readonly { chunk?: string }[]).map(({ chunk = "" }) => Buffer.from(chunk, "base64"));
        const { chunk: _, ...introduction } = (said[0] ?? {}) as { chunk?: string };
        const bytes = Readable.from(chunks);
        answers.push((await (isIntroduced(method) ? call(introduction, bytes) : call(bytes))) as JsonValue);
        break;
      }
      case "bidi_streaming": {
        const duplex = call() as Duplex<object, JsonValue>;
        for (const message of said) await duplex.send(message);
        duplex.end();
        await hear(duplex);
      }
    }
    return { answers };
  } catch (thrown) {
    if (!isFault(thrown)) throw thrown;
    const { reason, message, hint = "", detail } = thrown;
    return { answers, fault: { reason, message, hint, detail } };
  }
}

/** Says the same by gRPC. */
export async function speakGrpc(place: Place, method: DescMethod, said: readonly object[]): Promise<Heard> {
  const transport = grpcTransport(place);
  const header = place.kind === "tcp" && place.token !== undefined ? { authorization: `Bearer ${place.token}` } : {};
  const messages = said.map((json) => fromJson(method.input, json as JsonValue));
  const answers: JsonValue[] = [];
  const hear = (message: Message): void => {
    answers.push(toJson(method.output, message, { alwaysEmitImplicit: true }));
  };
  try {
    if (method.methodKind === "unary") {
      const [message = fromJson(method.input, {})] = messages;
      hear((await transport.unary(method as DescMethodUnary, undefined, undefined, header, message)).message);
    } else {
      const stream = async function* () {
        yield* messages;
      };
      const response = await transport.stream(method as DescMethodStreaming, undefined, undefined, header, stream());
      for await (const message of response.message) hear(message);
    }
    return { answers };
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    const [fault] = error.findDetails(FaultSchema);
    if (fault === undefined) throw error;
    const { reason, message, hint, detail } = fault;
    return { answers, fault: checked({ reason, message, hint, detail }, error.code, undefined) };
  }
}

export function grpcTransport(place: Place): Transport {
  if (place.kind === "tcp") return createGrpcTransport({ baseUrl: `http://127.0.0.1:${place.port}` });
  const { socketPath } = place;
  return createGrpcTransport({
    baseUrl: "http://localhost",
    nodeOptions: { createConnection: () => connectSocket(socketPath) },
  });
}

/** The fault, after proving that the protocol's codes are those of its reason. */
function checked(
  { reason, message, hint, detail }: NonNullable<Heard["fault"]>,
  grpc: number,
  http: number | undefined,
): NonNullable<Heard["fault"]> {
  const status = statuses[reason as keyof typeof statuses];
  if (status.grpc !== grpc) throw new Error(`${reason} has code ${grpc}, not ${status.grpc}`);
  if (http !== undefined && status.http !== http)
    throw new Error(`${reason} has HTTP status ${http}, not ${status.http}`);
  return { reason, message, hint, detail };
}

/** One plain HTTP/1.1 request. */
export function exchange(
  place: Place,
  verb: string,
  path: string,
  body: string | Uint8Array | undefined,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ readonly status: number; readonly text: string; readonly headers: Readonly<Record<string, unknown>> }> {
  const where = place.kind === "unix" ? { socketPath: place.socketPath } : { host: "127.0.0.1", port: place.port };
  const token = place.kind === "tcp" && place.token !== undefined ? { authorization: `Bearer ${place.token}` } : {};
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { ...where, method: verb, path, agent: false, headers: { ...token, ...headers } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.once("error", reject);
        response.once("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            text: Buffer.concat(chunks).toString(),
            headers: response.headers,
          }),
        );
      },
    );
    request.once("error", reject);
    request.end(body);
  });
}

function queryOf(request: Readonly<Record<string, unknown>>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(request)) {
    for (const item of Array.isArray(value) ? value : [value]) parameters.append(name, String(item));
  }
  return parameters.size === 0 ? "" : `?${parameters.toString()}`;
}
