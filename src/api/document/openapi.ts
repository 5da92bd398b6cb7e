import { ScalarType, type DescField, type DescMessage } from "@bufbuild/protobuf";
import { isByteStream, isIntroduced, type Binding } from "../rest/binding.ts";
import { shortName, type Model, type ServiceModel } from "./model.ts";

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
type JsonObject = { readonly [key: string]: Json };

/** The REST side of the API as an OpenAPI 3.1 document. */
export function openApi(model: Model): JsonObject {
  const paths: Record<string, Record<string, Json>> = {};
  for (const entry of model.services) {
    for (const binding of entry.bindings) {
      const path = binding.template.replace(
        /\{(\w+)\}/g,
        (_, name: string) => `{${fieldNamed(binding, name).jsonName}}`,
      );
      (paths[path] ??= {})[binding.verb.toLowerCase()] = operation(binding, entry, model);
    }
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Croft",
      version: "v1",
      description:
        "Croft turns Linux machines you own into your own cloud. The same methods are served as gRPC, gRPC-Web and Connect on the same address.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    security: [{}, { token: [] }],
    tags: model.services.map(({ noun, service }) => ({ name: noun, description: model.comments.of(service) })),
    paths,
    components: {
      securitySchemes: {
        token: {
          type: "http",
          scheme: "bearer",
          description: "Needed over TCP; the unix socket is guarded by its mode.",
        },
      },
      responses: {
        Fault: {
          description: "It failed, and this is why.",
          content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
        },
      },
      schemas: {
        Error: {
          type: "object",
          required: ["error"],
          properties: {
            error: {
              allOf: [{ $ref: "#/components/schemas/Fault" }],
              properties: { code: { type: "integer", description: "The gRPC status code of the reason." } },
            },
          },
        },
        ...Object.fromEntries(
          model.messages.map((message) => [message.name, messageSchema(message, model, new Set())]),
        ),
      },
    },
  };
}

function operation(binding: Binding, { service, noun }: ServiceModel, model: Model): JsonObject {
  const { method, segments, body } = binding;
  const inPath = new Set(segments.flatMap((segment) => ("field" in segment ? [segment.field] : [])));
  const others = method.input.fields.filter((field) => !inPath.has(field.name));
  const comment = model.comments.of(method);
  const parameter = (field: DescField, place: "path" | "query"): JsonObject => ({
    name: field.jsonName,
    in: place,
    ...(place === "path" && { required: true }),
    ...described(field, model),
    schema: fieldSchema(field),
  });
  const parameters = [
    ...[...inPath].map((name) => parameter(fieldNamed(binding, name), "path")),
    ...(body ? [] : others.map((field) => parameter(field, "query"))),
    // Beside plain bytes.
    ...(isIntroduced(method) ? others.slice(1).map((field) => parameter(field, "query")) : []),
  ];
  return {
    operationId: `${noun}.${shortName(method, service)}`,
    tags: [noun],
    ...(comment !== "" && { summary: comment.split(/(?<=\.)\s/)[0] ?? comment, description: comment }),
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { content: requestContent(binding, inPath, model) } }),
    responses: {
      "200": { description: "It went well.", content: answerContent(binding) },
      default: { $ref: "#/components/responses/Fault" },
    },
  };
}

const rawBytes: JsonObject = { schema: { type: "string", format: "binary" } };

function requestContent({ method }: Binding, inPath: ReadonlySet<string>, model: Model): JsonObject {
  const schema = inPath.size === 0 ? reference(method.input) : messageSchema(method.input, model, inPath);
  if (method.methodKind === "unary") return { "application/json": { schema } };
  return {
    "application/x-ndjson": { schema },
    ...(isByteStream(method, "input") && { "application/octet-stream": rawBytes }),
  };
}

function answerContent({ method }: Binding): JsonObject {
  const answer = reference(method.output);
  if (method.methodKind === "unary" || method.methodKind === "client_streaming") {
    return { "application/json": { schema: answer } };
  }
  const line = {
    description: "One line for each message; a last line with an error when it failed after it had begun.",
    oneOf: [
      { type: "object", required: ["result"], properties: { result: answer } },
      { $ref: "#/components/schemas/Error" },
    ],
  };
  return {
    "application/x-ndjson": { schema: line },
    ...(isByteStream(method, "output") && { "application/octet-stream": rawBytes }),
  };
}

function messageSchema(message: DescMessage, model: Model, without: ReadonlySet<string>): JsonObject {
  const fields = message.fields.filter((field) => !without.has(field.name));
  const comment = model.comments.of(message);
  return {
    type: "object",
    ...(comment !== "" && { description: comment }),
    properties: Object.fromEntries(
      fields.map((field) => [field.jsonName, { ...described(field, model), ...fieldSchema(field) }]),
    ),
  };
}

function described(field: DescField, model: Model): JsonObject {
  const comment = model.comments.of(field);
  return comment === "" ? {} : { description: comment };
}

function fieldNamed({ method }: Binding, name: string): DescField {
  const field = method.input.fields.find((field) => field.name === name);
  if (field === undefined) throw new Error(`${method.toString()} has no field ${name}`);
  return field;
}

function fieldSchema(field: DescField): JsonObject {
  const value =
    "message" in field && field.message !== undefined ? messageReference(field.message) : scalarSchema(field.scalar);
  switch (field.fieldKind) {
    case "list":
      return { type: "array", items: value };
    case "map":
      return { type: "object", additionalProperties: value };
    default:
      return value;
  }
}

function reference(message: DescMessage): JsonObject {
  return { $ref: `#/components/schemas/${message.name}` };
}

function messageReference(message: DescMessage): JsonObject {
  switch (message.typeName) {
    case "google.protobuf.Timestamp":
      return { type: "string", format: "date-time" };
    case "google.protobuf.Struct":
      return { type: "object" };
    case "google.protobuf.Value":
      return {};
    default:
      return reference(message);
  }
}

function scalarSchema(scalar: ScalarType | undefined): JsonObject {
  switch (scalar) {
    case ScalarType.BOOL:
      return { type: "boolean" };
    case ScalarType.INT32:
    case ScalarType.UINT32:
      return { type: "integer", format: "int32" };
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return { type: "number" };
    case ScalarType.BYTES:
      return { type: "string", contentEncoding: "base64" };
    default:
      return { type: "string" };
  }
}
