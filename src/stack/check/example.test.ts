import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { checkStack } from "./check.ts";

function check(name: string, text: string) {
  return checkStack({ path: "croft.toml", text, folder: `/examples/${name}`, format: "toml" });
}

for (const name of ["hello", "shop"]) {
  const text = readFileSync(new URL(`../../../examples/${name}/croft.toml`, import.meta.url), "utf8");

  test(`the example ${name} is right, also with every container a microvm`, () => {
    const { spec, problems } = check(name, text);
    assert.deepEqual(problems, []);
    const guests = check(name, text.replaceAll("[container.", "[microvm."));
    assert.deepEqual(guests.problems, []);
    const kinds = Object.values(guests.spec?.instances ?? {}).map(({ kind }) => kind);
    assert.ok(kinds.length > 0 && kinds.every((kind) => kind === "microvm"));
    const renamed = JSON.stringify(spec).replaceAll('"kind":"container"', '"kind":"microvm"');
    assert.deepEqual(guests.spec, JSON.parse(renamed));
  });
}
