import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inputFile } from "./input-file.ts";

test("a file is named from here; one that is not there, or is a folder, is refused in words", (context) => {
  const folder = mkdtempSync(join(tmpdir(), "input-file."));
  context.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "some.env"), "A=1\n");
  assert.equal(inputFile("some.env", folder), join(folder, "some.env"));
  assert.throws(() => inputFile("other.env", folder), { reason: "not-found", message: "there is no file other.env" });
  assert.throws(() => inputFile(".", folder), { reason: "invalid", message: ". is a folder" });
});
