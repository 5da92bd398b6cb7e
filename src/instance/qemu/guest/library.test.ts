import assert from "node:assert/strict";
import { it } from "node:test";
import { isFault } from "../../../base/fault.ts";
import { linkedProgram, parseElf } from "./library.ts";

it("finds what a program of this host needs, and what that needs, without running anything", () => {
  const { loader, libraries } = linkedProgram("/usr/bin/setpriv");
  assert.match(loader, /\/ld-linux|\/ld-.*\.so/);
  assert.ok(libraries.has("libc.so.6"));
  assert.ok([...libraries.values()].every((path) => path.startsWith("/")));
});

it("refuses a program that needs nothing, and what is none", () => {
  assert.throws(
    () => linkedProgram("/bin/busybox"),
    (error) => isFault(error, "unsupported"),
  );
  assert.throws(
    () => linkedProgram("/etc/passwd"),
    (error) => isFault(error, "corrupt"),
  );
  assert.throws(() => parseElf(Buffer.alloc(100)));
});
