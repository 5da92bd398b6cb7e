import { create, toBinary, type DescFile, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { nestedTypes } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import {
  ServerReflection,
  ServerReflectionResponseSchema,
  type ServerReflectionRequest,
} from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import {
  ServerReflection as ServerReflectionAlpha,
  ServerReflectionResponseSchema as ServerReflectionResponseAlphaSchema,
} from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { Health } from "../../gen/grpc/health/v1/health_pb.ts";

type Response = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;

/** Server reflection in both versions, which differ in their names only: older tools still ask for v1alpha. */
export function serveReflection(router: ConnectRouter, own: readonly DescService[]): void {
  const services = [...own, Health, ServerReflection, ServerReflectionAlpha];
  const index = new Index(services);
  router.service(ServerReflection, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        yield create(ServerReflectionResponseSchema, {
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(request, services, index),
        });
      }
    },
  });
  router.service(ServerReflectionAlpha, {
    async *serverReflectionInfo(requests) {
      for await (const { $typeName: _, ...request } of requests) {
        const asked = request as Omit<ServerReflectionRequest, "$typeName">;
        yield create(ServerReflectionResponseAlphaSchema, {
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(asked, services, index) as never,
        });
      }
    },
  });
}

function answer(
  { messageRequest: asked }: Pick<ServerReflectionRequest, "messageRequest">,
  services: readonly DescService[],
  index: Index,
): Response {
  switch (asked.case) {
    case "listServices":
      return {
        case: "listServicesResponse",
        value: { service: services.map(({ typeName }) => ({ name: typeName })) },
      };
    case "fileByFilename":
      return files(index.byName.get(asked.value), asked.value);
    case "fileContainingSymbol":
      return files(index.bySymbol.get(asked.value), asked.value);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = asked.value;
      return files(
        index.byExtension.get(`${containingType}:${extensionNumber}`),
        `${containingType}:${extensionNumber}`,
      );
    }
    case "allExtensionNumbersOfType": {
      const prefix = `${asked.value}:`;
      const numbers = [...index.byExtension.keys()].filter((key) => key.startsWith(prefix));
      return {
        case: "allExtensionNumbersResponse",
        value: { baseTypeName: asked.value, extensionNumber: numbers.map((key) => Number(key.slice(prefix.length))) },
      };
    }
    case undefined:
      return failure(Code.InvalidArgument, "the request asks for nothing");
  }
}

/** A file and all that it imports, so that the client need not ask again. */
function files(file: DescFile | undefined, asked: string): Response {
  if (file === undefined) return failure(Code.NotFound, `nothing here is called ${asked}`);
  const seen = new Set<DescFile>();
  const visit = (file: DescFile): void => {
    if (seen.has(file)) return;
    seen.add(file);
    file.dependencies.forEach(visit);
  };
  visit(file);
  const fileDescriptorProto = [...seen].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

function failure(errorCode: Code, errorMessage: string): Response {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}

/** Which file holds what. */
class Index {
  readonly byName = new Map<string, DescFile>();
  readonly bySymbol = new Map<string, DescFile>();
  /** By `<extended message>:<field number>`. */
  readonly byExtension = new Map<string, DescFile>();

  constructor(services: readonly DescService[]) {
    for (const { file } of services) this.#add(file);
  }

  #add(file: DescFile): void {
    if (this.byName.has(file.proto.name)) return;
    this.byName.set(file.proto.name, file);
    for (const type of nestedTypes(file)) {
      this.bySymbol.set(type.typeName, file);
      switch (type.kind) {
        case "service":
          for (const method of type.methods) this.bySymbol.set(`${type.typeName}.${method.name}`, file);
          break;
        case "extension":
          this.byExtension.set(`${type.extendee.typeName}:${type.number}`, file);
          break;
        case "message":
        case "enum":
          break;
      }
    }
    file.dependencies.forEach((dependency) => this.#add(dependency));
  }
}
