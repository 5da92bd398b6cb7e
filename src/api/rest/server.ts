import { readFile } from "node:fs/promises";
import type { Message } from "@bufbuild/protobuf";
import { Fault } from "../../base/fault.ts";
import type { Dispatcher } from "../dispatch.ts";
import type { ApiCall, ClientStreamHandler, DuplexHandler, ServerStreamHandler, UnaryHandler } from "../handler.ts";
import { sendAll, sendFault, type Answer, type Request } from "./answer.ts";
import { isByteStream, isIntroduced, type Binding } from "./binding.ts";
import { readBody, readMessages } from "./body.ts";
import { Kept } from "./kept.ts";
import { decode, encode, parseJson, queryToJson } from "./message.ts";
import { Routes } from "./route.ts";
import { sendStream } from "./stream.ts";

const jsonHead = { "content-type": "application/json" };
const lingerMs = 10_000;
const openApiFile = new URL("../../../docs/reference/openapi.json", import.meta.url);

/** REST: the same methods as gRPC, by the routes that the protocol's annotations give them. */
export class RestServer {
  readonly #dispatcher: Dispatcher;
  readonly #routes: Routes;
  readonly #kept: Kept;

  constructor(dispatcher: Dispatcher) {
    this.#dispatcher = dispatcher;
    this.#routes = new Routes(dispatcher.services);
    this.#kept = new Kept(dispatcher.services);
  }

  /** Answers one request of somebody who was let in. Never throws. */
  handle(request: Request, answer: Answer, author: string): void {
    const url = request.url ?? "/";
    if (request.method === "GET") {
      const kept = this.#kept.find(url);
      if (kept !== undefined) return sendAll(answer, 200, jsonHead, kept);
    }
    const mark = url.indexOf("?");
    const rawPath = mark === -1 ? url : url.slice(0, mark);
    const verb = request.method ?? "GET";
    if (verb === "GET" && rawPath === "/v1/openapi.json") return this.#sendOpenApi(answer);
    const found = this.#routes.find(verb, rawPath);
    if (found.kind === "method") {
      const query = new URLSearchParams(mark === -1 ? "" : url.slice(mark + 1));
      return this.#serve(found.binding, found.path, query, request, answer, author);
    }
    if (found.kind === "wrong-verb") {
      const allow = [...new Set(found.allowed)].join(", ");
      const fault = new Fault("unsupported", `${rawPath} does not take ${verb}`, { hint: `use ${allow}` });
      return sendFault(answer, fault, { allow }, 405);
    }
    const near = found.near.map(({ verb, template }) => `${verb} ${template}`).join(" or ");
    const hint = near === "" ? "GET /v1/openapi.json lists all routes" : `did you mean ${near}?`;
    sendFault(answer, new Fault("not-found", `there is no route ${verb} ${rawPath}`, { hint }));
  }

  #sendOpenApi(answer: Answer): void {
    readFile(openApiFile).then(
      (bytes) => sendAll(answer, 200, jsonHead, bytes),
      (error: unknown) => sendFault(answer, Fault.from(error, "read the API's description")),
    );
  }

  #serve(
    binding: Binding,
    path: Readonly<Record<string, string>>,
    query: URLSearchParams,
    request: Request,
    answer: Answer,
    author: string,
  ): void {
    const gone = new AbortController();
    answer.once("close", () => {
      if (!answer.writableFinished) gone.abort();
    });
    const call = this.#dispatcher.call(author, gone.signal);
    this.#call(binding, path, query, request, answer, call)
      .catch((thrown: unknown) => {
        const fault = this.#dispatcher.fault(thrown, binding.method.name, gone.signal);
        if (answer.headersSent) return void answer.destroy();
        // Otherwise a client that asked for one exchange only is hung up on while it sends, and may never see the answer.
        if (!request.complete) answer.shouldKeepAlive = true;
        sendFault(answer, fault);
      })
      .finally(() => this.#linger(request));
  }

  /**
   * What the client still sends when it has its answer is read and dropped for a while: closing on it at once could lose
   * the answer on its way.
   */
  #linger(request: Request): void {
    if (request.complete) return;
    request.resume();
    request.once(
      "close",
      this.#dispatcher.clock.after(lingerMs, () => request.destroy()),
    );
  }

  async #call(
    binding: Binding,
    path: Readonly<Record<string, string>>,
    query: URLSearchParams,
    request: Request,
    answer: Answer,
    call: ApiCall,
  ): Promise<void> {
    using _place = this.#dispatcher.admit();
    const { method } = binding;
    const plainInput =
      isByteStream(method, "input") && /^application\/(octet-stream|x-tar)/.test(request.headers["content-type"] ?? "");
    const plainOutput =
      isByteStream(method, "output") && /application\/(octet-stream|x-tar)/.test(request.headers.accept ?? "");
    const streamed = (messages: AsyncIterable<object>): Promise<void> =>
      sendStream(answer, messages, method, {
        plain: plainOutput,
        clock: call.clock,
        fault: (thrown) => this.#dispatcher.fault(thrown, method.name, call.signal),
      });
    switch (method.methodKind) {
      case "unary": {
        const message = await this.#read(binding, path, query, request, call);
        const revision = this.#kept.revision(method);
        const body = encode(method.output, await (this.#dispatcher.handler(method) as UnaryHandler)(message, call));
        if (revision !== undefined) this.#kept.keep(request.url ?? "/", method, revision, body);
        return sendAll(answer, 200, jsonHead, body);
      }
      case "server_streaming": {
        const message = await this.#read(binding, path, query, request, call);
        return await streamed((this.#dispatcher.handler(method) as ServerStreamHandler)(message, call));
      }
      case "client_streaming": {
        const isTold = plainInput && isIntroduced(method);
        const first = isTold ? decode(method.input, queryToJson(method.input, query), path) : undefined;
        const messages = readMessages(request, method, plainInput, first);
        const result = await (this.#dispatcher.handler(method) as ClientStreamHandler)(messages, call);
        return sendAll(answer, 200, jsonHead, encode(method.output, result));
      }
      case "bidi_streaming": {
        // The client may still be sending when all is said, and who is hung up on then may never see the answer.
        answer.shouldKeepAlive = true;
        const messages = readMessages(request, method, plainInput);
        return await streamed((this.#dispatcher.handler(method) as DuplexHandler)(messages, call));
      }
    }
  }

  async #read(
    { method, body }: Binding,
    path: Readonly<Record<string, string>>,
    query: URLSearchParams,
    request: Request,
    call: ApiCall,
  ): Promise<Message> {
    if (!body) return decode(method.input, queryToJson(method.input, query), path);
    const [parameter] = query.keys();
    if (parameter !== undefined) {
      throw new Fault("invalid", `${method.name} takes no query parameters, but got ${parameter}`, {
        hint: "put it into the JSON body",
      });
    }
    const text = await readBody(request, call.clock);
    return decode(method.input, text.trim() === "" ? {} : parseJson(text), path);
  }
}
