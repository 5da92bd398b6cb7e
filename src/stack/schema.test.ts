import assert from "node:assert/strict";
import { test } from "node:test";
import { imageFields, instanceFields, networkFields, secretFields, topFields, volumeFields } from "./field.ts";
import { guestFields, machineFields, microvmFields } from "./guest-field.ts";
import { languageReference } from "./reference.ts";
import { stackSchema } from "./schema.ts";

type Node = {
  readonly properties?: Record<string, Node>;
  readonly additionalProperties?: Node | boolean;
  readonly [key: string]: unknown;
};

test("the schema describes every field, requires what is required, and knows nothing else", () => {
  const schema = stackSchema() as Node;
  assert.equal(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  assert.equal(schema.additionalProperties, false);
  assert.equal(schema["required"], undefined);
  const sections = {
    network: networkFields,
    volume: volumeFields,
    secret: secretFields,
    image: imageFields,
    container: instanceFields,
    microvm: microvmFields,
    vm: machineFields,
  };
  assert.deepEqual(Object.keys(schema.properties ?? {}), [...Object.keys(topFields), ...Object.keys(sections)]);
  for (const [noun, fields] of Object.entries(sections)) {
    const section = schema.properties?.[noun]?.additionalProperties;
    assert(typeof section === "object", noun);
    assert.equal(section.additionalProperties, false);
    assert.deepEqual(Object.keys(section.properties ?? {}), Object.keys(fields));
    for (const [name, { doc }] of Object.entries(fields)) {
      assert(String(section.properties?.[name]?.["description"]).startsWith(doc), `${noun}.${name}`);
    }
    const required = Object.entries(fields).filter(([, field]) => field.default === "required");
    assert.deepEqual(
      section["required"] ?? [],
      required.map(([name]) => name),
    );
  }
  assert.deepEqual(JSON.parse(JSON.stringify(schema)), schema);
});

test("the reference has every field with its type, default and example", () => {
  const text = languageReference();
  const all = [topFields, networkFields, volumeFields, secretFields, imageFields, instanceFields, machineFields];
  for (const fields of [...all, guestFields]) {
    for (const [name, field] of Object.entries(fields)) {
      assert(text.includes(`| \`${name}\` | ${field.type.replaceAll("|", "\\|")} |`), name);
      assert(text.includes(field.example) && text.includes(field.doc), name);
    }
  }
});
