import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { tarOf } from "./source-tar.ts";

const scratch = mkdtempSync(join(tmpdir(), "croft-tar-"));
after(() => rmSync(scratch, { recursive: true }));

async function bytesOf(path: string): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(await tarOf(path)));
}

/** As GNU tar reads it: permissions, owner, name. */
function listed(tar: Buffer): string[] {
  const { stdout, status, stderr } = spawnSync("tar", ["-tvf", "-", "--numeric-owner", "--full-time", "--utc"], {
    input: tar,
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  return stdout.trimEnd().split("\n");
}

function folder(name: string): string {
  const path = join(scratch, name);
  mkdirSync(join(path, "sub"), { recursive: true });
  writeFileSync(join(path, "b.txt"), "bee");
  writeFileSync(join(path, "sub", "empty"), "");
  writeFileSync(join(path, "a.sh"), "#!/bin/sh\n");
  chmodSync(join(path, "a.sh"), 0o755);
  chmodSync(join(path, "b.txt"), 0o640);
  chmodSync(join(path, "sub", "empty"), 0o644);
  chmodSync(join(path, "sub"), 0o755);
  symlinkSync("../elsewhere", join(path, "link"));
  return path;
}

test("a file is one entry named by a dot", async () => {
  const path = join(scratch, "one.conf");
  writeFileSync(path, "hello");
  chmodSync(path, 0o600);
  assert.deepEqual(listed(await bytesOf(path)), ["-rw------- 0/0               5 1970-01-01 00:00:00 ."]);
});

test("a folder is all that is in it: sorted, with modes, links as links", async () => {
  const lines = listed(await bytesOf(folder("tree")));
  assert.deepEqual(
    lines.map((line) => line.replace(/ 0\/0 .* 00:00:00 /, " ")),
    [
      "-rwxr-xr-x a.sh",
      "-rw-r----- b.txt",
      "lrwxrwxrwx link -> ../elsewhere",
      "drwxr-xr-x sub/",
      "-rw-r--r-- sub/empty",
    ],
  );
});

test("equal content gives equal bytes, whenever it was written", async () => {
  const left = folder("left");
  const right = folder("right");
  utimesSync(join(left, "b.txt"), 1_000_000, 1_000_000);
  assert.deepEqual(await bytesOf(left), await bytesOf(right));
  writeFileSync(join(right, "b.txt"), "boo");
  assert.notDeepEqual(await bytesOf(left), await bytesOf(right));
});

test("a large file arrives whole", async () => {
  const path = join(scratch, "large");
  const content = Buffer.alloc(3 * 2 ** 20 + 17, "croft");
  writeFileSync(path, content);
  const { stdout } = spawnSync("tar", ["-xOf", "-", "."], { input: await bytesOf(path), maxBuffer: 2 ** 24 });
  assert.ok(stdout.equals(content));
});

test("what is missing or cannot be sent is named", async () => {
  await assert.rejects(bytesOf(join(scratch, "nothing")), { reason: "not-found", message: /nothing does not exist/ });
  const path = join(scratch, "odd");
  mkdirSync(path);
  spawnSync("mkfifo", [join(path, "pipe")]);
  await assert.rejects(bytesOf(path), { reason: "invalid", message: /pipe is neither a file, a folder nor/ });
});
