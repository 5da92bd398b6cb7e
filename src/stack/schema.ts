import { z } from "zod";
import { imageShapes, instanceShapes, networkShapes, secretShapes, topShapes, volumeShapes } from "./check/shape.ts";
import { imageFields, instanceFields, networkFields, secretFields, topFields, volumeFields } from "./field.ts";
import type { Field } from "./field.ts";
import { machineShapes, microvmShapes } from "./check/guest-shape.ts";
import { machineFields, microvmFields } from "./guest-field.ts";

/** The JSON Schema (draft 2020-12) of a stack file, for editors: every section and field with what it means. */
export function stackSchema(): Record<string, unknown> {
  const document = z.strictObject({
    ...described(topShapes, topFields),
    network: named(networkShapes, networkFields, "Networks of this stack, by name."),
    volume: named(volumeShapes, volumeFields, "Volumes of this stack, by name."),
    secret: named(secretShapes, secretFields, "Secrets of this stack, by name."),
    image: named(imageShapes, imageFields, "Images built here, by name."),
    container: named(instanceShapes, instanceFields, "Containers to run, by name."),
    microvm: named(microvmShapes, microvmFields, "Images to run with a kernel of their own, by name."),
    vm: named(machineShapes, machineFields, "Full machines to run, by name."),
  });
  const sections = { ...z.toJSONSchema(document.partial(), { io: "input", target: "draft-2020-12" }) };
  return {
    ...sections,
    title: "Croft stack file",
    description: "What should run: networks, volumes, secrets, images, containers, microVMs and full machines.",
  };
}

type Shapes = Readonly<Record<string, z.ZodType>>;
type Fields = Readonly<Record<string, Field>>;

function named(shapes: Shapes, fields: Fields, doc: string): z.ZodType {
  const name = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/);
  return z.record(name, z.strictObject(described(shapes, fields))).describe(doc);
}

/** Each shape with its field's words; optional unless the field is required. */
function described(shapes: Shapes, fields: Fields): Record<string, z.ZodType> {
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const field = fields[name];
      const doc = field === undefined ? "" : `${field.doc} Default: ${field.default}. Example: ${field.example}`;
      const isRequired = field?.default === "required";
      const told = shape.describe(isRequired ? doc.replace(" Default: required.", "") : doc);
      return [name, isRequired ? told : told.optional()];
    }),
  );
}
