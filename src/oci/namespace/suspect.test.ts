import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { inKnownWords, isSuspect, withoutLog } from "./suspect.ts";

const root = mkdtempSync(join(tmpdir(), "croft-oci-suspect-"));
after(() => rmSync(root, { recursive: true }));
mkdirSync(join(root, "usr/bin"), { recursive: true });
writeFileSync(join(root, "usr/bin/tool"), "");
chmodSync(join(root, "usr/bin/tool"), 0o755);
writeFileSync(join(root, "usr/bin/text"), "");
symlinkSync("/usr/bin", join(root, "bin"));
symlinkSync("../../../../usr/bin/tool", join(root, "usr/bin/up"));
symlinkSync("round", join(root, "usr/bin/round"));

for (const [program, env, suspect] of [
  ["/usr/bin/tool", [], false],
  ["/bin/tool", [], false],
  ["/usr/bin/up", [], false],
  ["tool", ["PATH=/none:/bin"], false],
  ["./tool", [], false],
  ["tool", ["PATH=/none"], true],
  ["/usr/bin/text", [], true],
  ["/usr/bin/round", [], true],
  ["/usr/bin", [], true],
  ["/etc/nothing", [], true],
  ["/usr/bin/text/below", [], true],
  ["", [], true],
] as const) {
  test(`${program} ${env.join("")} ${suspect ? "may be missing" : "is there"}`, () => {
    assert.equal(isSuspect(root, { args: [program], cwd: "/usr/bin", env }), suspect);
  });
}

test("a process without a program may be missing it", () => {
  for (const process of [{ cwd: "/" }, { cwd: "/", args: [] }, undefined]) assert.equal(isSuspect(root, process), true);
});

test("where to log is left out, and nothing of the program's words", () => {
  const args = ["--root=/r", "--log=/l", "--log-format=json", "exec", "--", "web", "nginx", "--log=/x"];
  assert.deepEqual(withoutLog(args), ["--root=/r", "exec", "--", "web", "nginx", "--log=/x"]);
});

test("what crun complains of is said in the words that callers look for", () => {
  const missing = "executable file `/x` not found in $PATH: No such file or directory";
  assert.equal(inKnownWords(missing, "/x"), 'exec: "/x": stat /x: no such file or directory');
  assert.equal(inKnownWords(missing, "x"), 'exec: "x": executable file not found in $PATH');
  assert.equal(inKnownWords("open executable: Operation not permitted", "/etc"), 'exec: "/etc": permission denied');
  assert.equal(inKnownWords("anything else", "/x"), "anything else");
});
