import { getOption, type DescMethod } from "@bufbuild/protobuf";
import { http } from "../../gen/google/api/annotations_pb.ts";
import type { HttpRule } from "../../gen/google/api/http_pb.ts";

/** How a method is reached by HTTP: its `google.api.http` annotation, taken apart. */
export interface Binding {
  readonly method: DescMethod;
  readonly verb: Verb;
  /** As annotated: `/v1/instances/{instance}:stop`. */
  readonly template: string;
  /** The template between its slashes, without the custom verb. */
  readonly segments: readonly Segment[];
  /** What follows the last colon, `stop`; empty when there is none. */
  readonly action: string;
  /** True when the fields that the path does not hold are in the body, false when they are query parameters. */
  readonly body: boolean;
}

export type Verb = "GET" | "PUT" | "POST" | "DELETE" | "PATCH";
export type Segment = { readonly literal: string } | { readonly field: string };

/**
 * The binding of `method`. Throws an Error when it has none or one that goes beyond what Croft's API uses: the
 * annotations are ours, so this is found when the daemon starts, and by every test.
 */
export function bindingOf(method: DescMethod): Binding {
  const rule = getOption(method, http);
  const { verb, template } = pattern(rule, method);
  if (rule.body !== "" && rule.body !== "*") throw new Error(`${method.toString()}: body must be "*" or absent`);
  const colon = template.lastIndexOf(":");
  const action =
    colon > template.lastIndexOf("}") && colon > template.lastIndexOf("/") ? template.slice(colon + 1) : "";
  const path = action === "" ? template : template.slice(0, colon);
  const segments = path
    .slice(1)
    .split("/")
    .map((text): Segment => {
      if (!text.startsWith("{")) return { literal: text };
      const name = text.slice(1, -1);
      const field = method.input.fields.find((field) => field.name === name);
      if (field?.fieldKind !== "scalar")
        throw new Error(`${method.toString()}: no scalar field ${name} for ${template}`);
      return { field: name };
    });
  return { method, verb, template, segments, action, body: rule.body === "*" };
}

function pattern(rule: HttpRule, method: DescMethod): { verb: Verb; template: string } {
  switch (rule.pattern.case) {
    case "get":
      return { verb: "GET", template: rule.pattern.value };
    case "put":
      return { verb: "PUT", template: rule.pattern.value };
    case "post":
      return { verb: "POST", template: rule.pattern.value };
    case "delete":
      return { verb: "DELETE", template: rule.pattern.value };
    case "patch":
      return { verb: "PATCH", template: rule.pattern.value };
    case "custom":
    case undefined:
      throw new Error(`${method.toString()}: no google.api.http annotation with a usual verb`);
  }
}

/**
 * True when a stream of this message may travel as plain bytes (`application/octet-stream`) instead of as lines of
 * JSON: it is a chunk of bytes and nothing more. What a client sends may be introduced by more, see `isIntroduced`.
 */
export function isByteStream(method: DescMethod, side: "input" | "output"): boolean {
  const streams =
    method.methodKind === "bidi_streaming"
      ? false
      : method.methodKind === (side === "input" ? "client_streaming" : "server_streaming");
  const fields = method[side].fields;
  return streams && fields[0]?.localName === "chunk" && (fields.length === 1 || side === "input");
}

/** True when the first message of a client's byte stream says what the bytes are: by REST, as query parameters. */
export function isIntroduced(method: DescMethod): boolean {
  return isByteStream(method, "input") && method.input.fields.length > 1;
}
