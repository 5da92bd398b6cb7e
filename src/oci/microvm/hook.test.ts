import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { runHooks } from "./hook.ts";

const directory = mkdtempSync(join(tmpdir(), "croft-oci-hook-"));
after(() => rmSync(directory, { recursive: true }));
const record = join(directory, "record");

test("a hook that fails is told, and the others run with the state and the name that they are to have", () => {
  const warnings: string[] = [];
  const hooks = [
    { path: "/bin/sh", args: ["sh", "-c", "echo why >&2; exit 3"] },
    { path: "/nothing" },
    { path: "/bin/sleep", args: ["sleep", "60"], timeout: 1 },
    { path: "/bin/sh", args: ["renamed", "-c", `echo "$0 $A $(cat)" >${record}`], env: ["A=b=c"] },
  ];
  runHooks(hooks, { status: "running" }, { warn: (message) => void warnings.push(message) });
  assert.deepEqual(warnings.length, 3);
  assert.equal(warnings[0], "hooks.poststart[0]: /bin/sh: ended with 3: why");
  assert.match(warnings[1] ?? "", /^hooks\.poststart\[1\]: \/nothing: .*ENOENT/);
  assert.match(warnings[2] ?? "", /^hooks\.poststart\[2\]: \/bin\/sleep: .*ETIMEDOUT/);
  assert.equal(readFileSync(record, "utf8"), 'renamed b=c {"status":"running"}\n');
});
