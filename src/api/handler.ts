import type {
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  Message,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { Call } from "../base/call.ts";

/** The context of one request. Its signal aborts when the client goes away; nobody listens to its progress. */
export interface ApiCall extends Call {
  /** Who asks: a hint on the unix socket, the token's name on TCP. */
  readonly author: string;
}

/** What a method does, whichever protocol it is reached by. Throws `Fault`; anything else is taken for a bug of ours. */
export type Handler<Method extends DescMethod> =
  Method extends DescMethodUnary<infer Input, infer Output>
    ? (request: MessageShape<Input>, call: ApiCall) => Promise<MessageInitShape<Output>>
    : Method extends DescMethodServerStreaming<infer Input, infer Output>
      ? (request: MessageShape<Input>, call: ApiCall) => AsyncIterable<MessageInitShape<Output>>
      : Method extends DescMethodClientStreaming<infer Input, infer Output>
        ? (requests: AsyncIterable<MessageShape<Input>>, call: ApiCall) => Promise<MessageInitShape<Output>>
        : Method extends DescMethodBiDiStreaming<infer Input, infer Output>
          ? (requests: AsyncIterable<MessageShape<Input>>, call: ApiCall) => AsyncIterable<MessageInitShape<Output>>
          : never;

/** All methods of a service. */
export type Handlers<Service extends DescService> = {
  readonly [Name in keyof Service["method"]]: Handler<Service["method"][Name]>;
};

/** A service and what it does; made by `serve`, so that the two fit. */
export interface Served {
  readonly service: DescService;
  readonly handlers: Readonly<Record<string, AnyHandler>>;
  /**
   * By method: a number that changes whenever the answer to the same request would. Such answers are encoded once and
   * then sent from memory.
   */
  readonly revisions: Readonly<Record<string, () => number>>;
}

/** A handler as the protocols call it; the method's kind says which side is a stream. */
export type AnyHandler = (request: never, call: ApiCall) => Promise<object> | AsyncIterable<object>;
export type UnaryHandler = (request: Message, call: ApiCall) => Promise<object>;
export type ServerStreamHandler = (request: Message, call: ApiCall) => AsyncIterable<object>;
export type ClientStreamHandler = (requests: AsyncIterable<Message>, call: ApiCall) => Promise<object>;
export type DuplexHandler = (requests: AsyncIterable<Message>, call: ApiCall) => AsyncIterable<object>;

export function serve<Service extends DescService>(
  service: Service,
  handlers: Handlers<Service>,
  revisions: Partial<Record<keyof Service["method"] & string, () => number>> = {},
): Served {
  return {
    service,
    handlers,
    revisions: revisions as Served["revisions"],
  };
}
