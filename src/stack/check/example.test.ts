import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { checkStack } from "./check.ts";

for (const name of ["hello", "shop"]) {
  const path = fileURLToPath(new URL(`../../../examples/${name}/croft.toml`, import.meta.url));
  const text = readFileSync(path, "utf8");

  test(`the example ${name} is right, also with every container a microvm`, () => {
    const check = (written: string) => checkStack({ path, text: written, folder: `/examples/${name}`, format: "toml" });
    const { spec, problems } = check(text);
    assert.deepEqual(problems, []);
    const guests = check(text.replaceAll("[container.", "[microvm."));
    assert.deepEqual(guests.problems, []);
    const kinds = Object.values(guests.spec?.instances ?? {}).map(({ kind }) => kind);
    assert.ok(kinds.length > 0 && kinds.every((kind) => kind === "microvm"));
    const renamed = JSON.stringify(spec).replaceAll('"kind":"container"', '"kind":"microvm"');
    assert.deepEqual(guests.spec, JSON.parse(renamed));
  });
}
