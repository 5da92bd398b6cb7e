import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { possible } from "./candidate.ts";

const words = async (...line: string[]): Promise<readonly string[]> =>
  (await possible(line)).words.map(({ word }) => word);

test("commands come first, then those of a noun, never hidden ones", async () => {
  const first = await words("");
  assert.ok(first.includes("up") && first.includes("image") && !first.includes("__complete"));
  assert.deepEqual(await words("volume", ""), ["ls", "inspect", "rm"]);
  assert.ok((await words("--root", "/x", "")).includes("up"));
});

test("flags are those of the verb and of every command", async () => {
  const flags = await words("ps", "--");
  assert.ok(flags.includes("--all") && flags.includes("--json"));
});

test("values are offered where a flag takes them, in either spelling", async () => {
  assert.deepEqual(await words("run", "--pull", ""), ["missing", "always", "never"]);
  const joined = await possible(["run", "--pull=al"]);
  assert.deepEqual([joined.prefix, joined.words.map(({ word }) => word)], ["--pull=", ["missing", "always", "never"]]);
  assert.equal((await possible(["ps", "--stack", ""])).offers, "stack");
  assert.equal((await possible(["--root", ""])).offers, "folder");
});

test("arguments are offered by their place", async () => {
  assert.equal((await possible(["exec", "-it", ""])).offers, "instance");
  assert.equal((await possible(["exec", "-it", "web", "-"])).offers, "program");
  assert.equal((await possible(["stop", "web", ""])).offers, "instance");
  assert.equal((await possible(["image", "tag", "a", ""])).offers, undefined);
  assert.equal((await possible(["up", ""])).offers, "file");
  assert.equal((await possible(["ps", "x", ""])).offers, undefined);
});

const scratch = mkdtempSync(join(tmpdir(), "croft-completion-"));
after(() => rmSync(scratch, { recursive: true }));

/** What bash itself puts in place of the last word of a line. */
function completeInBash(line: string): string[] {
  const croft = join(scratch, "croft");
  const source = fileURLToPath(new URL("../../bin/croft.ts", import.meta.url));
  writeFileSync(
    croft,
    `#!/bin/sh\nexec ${process.execPath} --disable-warning=ExperimentalWarning ${source} --root ${scratch} "$@"\n`,
  );
  chmodSync(croft, 0o755);
  const driver = `
    eval "$(croft completion bash)"
    COMP_LINE=$1; COMP_POINT=\${#1}
    # As readline splits it: at spaces, and at colons and equal signs, which become words of their own.
    mapfile -t COMP_WORDS < <(sed -E 's/([:=])/\\n\\1\\n/g; s/ +/\\n/g' <<<"$1")
    COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
    _croft
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync("bash", ["--norc", "-c", driver, "bash", line], {
    encoding: "utf8",
    env: { ...process.env, PATH: `${scratch}:${process.env["PATH"]}` },
  });
  assert.equal(stderr, "");
  return stdout.trimEnd().split("\n");
}

test("bash completes commands, flags and values, split words included", () => {
  assert.deepEqual(completeInBash("croft roll"), ["rollback"]);
  assert.deepEqual(completeInBash("croft image p"), ["pull", "push"]);
  assert.deepEqual(completeInBash("croft run --cap-"), ["--cap-add", "--cap-drop"]);
  assert.deepEqual(completeInBash("croft run --pull=a"), ["always"]);
});
