import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { withVersion } from "./version.ts";

test("only the version changes, to the byte", () => {
  const text =
    '{\n  "process": {"limit": 18446744073709551615, "ociVersion": "9"},\n  "ociVersion" : "1.2.0", "z": [1]\n}';
  assert.equal(withVersion(text, "1.0.2"), text.replace('"1.2.0"', '"1.0.2"'));
});

test("whatever else is in the document, it reads the same but for the version", () => {
  const document = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }));
  fc.assert(
    fc.property(document, fc.integer({ min: 0, max: 3 }), (fields, indent) => {
      const whole = { ...fields, ociVersion: "1.1.0" };
      const changed: unknown = JSON.parse(withVersion(JSON.stringify(whole, null, indent), "1.0.2"));
      assert.equal(JSON.stringify(changed), JSON.stringify({ ...whole, ociVersion: "1.0.2" }));
    }),
  );
});
