import {
  create,
  fromJson,
  ScalarType,
  toJson,
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  type Message,
} from "@bufbuild/protobuf";
import { Fault } from "../../base/fault.ts";

/** A message from JSON and the variables of the path. Throws an `invalid` Fault that names the field. */
export function decode(schema: DescMessage, json: JsonValue, path: Readonly<Record<string, string>>): Message {
  if (json === null || typeof json !== "object" || Array.isArray(json)) {
    throw new Fault("invalid", `the body must be a JSON object, a ${schema.name}`);
  }
  for (const name of Object.keys(path)) {
    const field = schema.fields.find((field) => field.name === name);
    if (field === undefined || !(field.name in json || field.jsonName in json)) continue;
    // Two values for one field: which one was meant cannot be known.
    throw new Fault("invalid", `${field.jsonName} is in the path and given again`, { hint: "leave it to the path" });
  }
  try {
    return fromJson(schema, { ...json, ...path });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new Fault(
      "invalid",
      `not a ${schema.name}: ${text.replace(/^cannot decode (message|field) croft\.v1\./, "")}`,
      {
        hint: "docs/reference/api.md lists the fields of each message",
        cause: error,
      },
    );
  }
}

export function parseJson(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch (error) {
    throw new Fault("invalid", `not JSON: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/** A message as clients see it: every field that has no presence of its own is there, also when it is zero or empty. */
export function encode(schema: DescMessage, init: object): string {
  return JSON.stringify(toJson(schema, create(schema, init as never), { alwaysEmitImplicit: true }));
}

/**
 * Query parameters as JSON for `decode`: names as in JSON or in the proto file, `a.b=` for a field of a field, repeated
 * for a list.
 */
export function queryToJson(schema: DescMessage, parameters: URLSearchParams): JsonObject {
  const json: JsonObject = {};
  for (const [name, text] of parameters) put(json, schema, name.split("."), text, name);
  return json;
}

function put(into: JsonObject, schema: DescMessage, names: readonly string[], text: string, whole: string): void {
  const [name, ...rest] = names;
  const field = schema.fields.find((field) => field.jsonName === name || field.name === name);
  if (field === undefined) {
    const known = schema.fields.map((field) => field.jsonName).join(", ");
    throw new Fault("invalid", `there is no parameter ${whole}`, {
      hint: known === "" ? "this call takes none" : `known are ${known}`,
    });
  }
  if (field.fieldKind === "map" && rest.length > 0) {
    const entries = (into[field.jsonName] ??= {}) as JsonObject;
    entries[rest.join(".")] = text;
    return;
  }
  if (rest.length > 0) {
    if (field.fieldKind !== "message") throw new Fault("invalid", `${field.jsonName} has no fields: ${whole}`);
    put((into[field.jsonName] ??= {}) as JsonObject, field.message, rest, text, whole);
    return;
  }
  const value = scalar(field, text, whole);
  if (field.fieldKind === "list") {
    ((into[field.jsonName] ??= []) as JsonValue[]).push(value);
  } else if (field.jsonName in into) {
    throw new Fault("invalid", `${whole} is given more than once`);
  } else {
    into[field.jsonName] = value;
  }
}

/** Numbers and timestamps may be strings in protobuf's JSON, so only booleans need a look. */
function scalar(field: DescField, text: string, whole: string): JsonValue {
  const type = field.fieldKind === "scalar" || field.fieldKind === "list" ? field.scalar : undefined;
  if (type !== ScalarType.BOOL) return text;
  // `?all` and `?all=true` mean the same to whoever types it.
  if (text === "" || text === "true") return true;
  if (text === "false") return false;
  throw new Fault("invalid", `${whole}=${text}`, { hint: "write true or false" });
}
