import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

/** What `place.ts` finds in a process that is started by `argv`. */
function seenBy(argv: readonly string[]): string {
  const place = JSON.stringify(import.meta.resolve("./place.ts"));
  const program = `import { defaultRoot, isHostRoot } from ${place}; console.log(isHostRoot(), defaultRoot())`;
  const node = ["--disable-warning=ExperimentalWarning", "--input-type=module", "--eval", program];
  const [command = "", ...args] = [...argv, process.execPath, ...node];
  const { stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { PATH: process.env["PATH"], XDG_RUNTIME_DIR: "/xdg" },
    timeout: 60_000,
  });
  return stdout.trim() || stderr;
}

const isRoot = process.getuid?.() === 0;
/** A user who is not root, whoever runs this. */
const someone = isRoot ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : [];

const asRootOfNamespace = [...someone, "unshare", "--user", "--map-root-user"];
const [program = "", ...args] = asRootOfNamespace;
const reason = spawnSync(program, [...args, "true"]).status === 0 ? false : "no user namespaces here";

test("root of a user namespace keeps its records where the user may write, as crun does", { skip: reason }, () => {
  assert.equal(seenBy(asRootOfNamespace), "false /xdg/croft-oci");
});

test("another user does, too", () => {
  assert.equal(seenBy(someone), "false /xdg/croft-oci");
});

test("root of the host has a place of its own", { skip: !isRoot && "needs root" }, () => {
  assert.equal(seenBy(["env"]), "true /run/croft-oci");
});
