import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import {
  ConnectError,
  createContextKey,
  createContextValues,
  type ConnectRouter,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { Fault } from "../../base/fault.ts";
import { FaultSchema } from "../../gen/croft/v1/fault_pb.ts";
import type { Dispatcher } from "../dispatch.ts";
import type { Authenticate } from "../door.ts";
import type { ApiCall, ClientStreamHandler, DuplexHandler, ServerStreamHandler, UnaryHandler } from "../handler.ts";
import type { Answer, Request } from "../rest/answer.ts";
import { messageLimitBytes } from "../rest/body.ts";
import { statuses } from "../status.ts";
import { serveHealth } from "./health.ts";
import { serveReflection } from "./reflection.ts";

export type RpcHandler = (request: Request, answer: Answer) => void;

/** Who asks, or the Fault with which they were turned away at the door. */
const visitor = createContextKey<{ author: string } | { fault: Fault }>({ author: "" });

/** gRPC, gRPC-Web and Connect for the same methods as REST, with reflection and health. */
export function rpcHandler(dispatcher: Dispatcher, authenticate: Authenticate): RpcHandler {
  return connectNodeAdapter({
    routes(router) {
      for (const { service } of dispatcher.services)
        for (const method of service.methods) route(router, method, dispatcher);
      const services = dispatcher.services.map(({ service }) => service);
      serveHealth(router, services);
      serveReflection(router, services);
    },
    readMaxBytes: messageLimitBytes,
    interceptors: [turnAway],
    contextValues(request) {
      const values = createContextValues();
      try {
        return values.set(visitor, { author: authenticate(request.headers) });
      } catch (thrown) {
        return values.set(visitor, { fault: dispatcher.fault(thrown, "authenticate", new AbortController().signal) });
      }
    },
  });
}

const turnAway: Interceptor = (next) => async (request) => {
  const who = request.contextValues.get(visitor);
  if ("fault" in who) throw toConnectError(who.fault);
  return await next(request);
};

function route(router: ConnectRouter, method: DescMethod, dispatcher: Dispatcher): void {
  const callOf = (context: HandlerContext): ApiCall => {
    const who = context.values.get(visitor);
    return dispatcher.call("author" in who ? who.author : "", context.signal);
  };
  const refuse = (thrown: unknown, context: HandlerContext): ConnectError =>
    toConnectError(dispatcher.fault(thrown, method.name, context.signal));

  const answerOne = async (context: HandlerContext, work: (call: ApiCall) => Promise<object>): Promise<Message> => {
    try {
      using _place = dispatcher.admit();
      return create(method.output, (await work(callOf(context))) as never);
    } catch (thrown) {
      throw refuse(thrown, context);
    }
  };
  const answerMany = async function* (
    context: HandlerContext,
    work: (call: ApiCall) => AsyncIterable<object>,
  ): AsyncGenerator<Message> {
    try {
      using _place = dispatcher.admit();
      for await (const message of work(callOf(context))) yield create(method.output, message as never);
    } catch (thrown) {
      throw refuse(thrown, context);
    }
  };

  const handler = dispatcher.handler(method) as unknown;
  const implementations = {
    unary: (request: Message, context: HandlerContext) =>
      answerOne(context, (call) => (handler as UnaryHandler)(request, call)),
    server_streaming: (request: Message, context: HandlerContext) =>
      answerMany(context, (call) => (handler as ServerStreamHandler)(request, call)),
    client_streaming: (requests: AsyncIterable<Message>, context: HandlerContext) =>
      answerOne(context, (call) => (handler as ClientStreamHandler)(requests, call)),
    bidi_streaming: (requests: AsyncIterable<Message>, context: HandlerContext) =>
      answerMany(context, (call) => (handler as DuplexHandler)(requests, call)),
  };
  router.rpc(method, implementations[method.methodKind] as never);
}

/** The Fault travels as a detail; the message beside the code repeats it for clients that show only that. */
function toConnectError(fault: Fault): ConnectError {
  const { reason, message, hint = "", detail } = fault;
  return new ConnectError(message, statuses[reason].grpc, undefined, [
    { desc: FaultSchema, value: { reason, message, hint, detail } },
  ]);
}
