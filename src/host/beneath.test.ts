import assert from "node:assert/strict";
import { closeSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { linkSync, readdirSync, renameSync, statSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import * as fc from "fast-check";
import { backgroundCall } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import {
  makeDirBeneath,
  makeFileBeneath,
  openBeneath,
  readFileBeneath,
  resolveBeneath,
  writeFileBeneath,
} from "./beneath.ts";
import { O_PATH } from "./kernel.ts";
import { run, stream } from "./process.ts";

/**
 * The attacker owns the tree: `root` is theirs, `outside` is the host's. Whatever they put there, nothing of `outside` is
 * read, made or changed.
 */
const call = backgroundCall();

function hostile(error: unknown): boolean {
  return isFault(error, "hostile");
}

function precondition(error: unknown): boolean {
  return isFault(error, "precondition");
}

function scenario(what: string, body: (root: string, outside: string) => Promise<void> | void): void {
  test(what, async () => {
    const directory = mkdtempSync(join(tmpdir(), "beneath."));
    const [root, outside] = [join(directory, "root"), join(directory, "outside")];
    mkdirSync(root);
    mkdirSync(outside);
    writeFileSync(join(outside, "secret"), "of the host");
    try {
      await body(root, outside);
      assert.deepEqual(readdirSync(outside), ["secret"]);
      assert.equal(readFileSync(join(outside, "secret"), "utf8"), "of the host");
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
}

scenario("a path is resolved as in a chroot, and comes back without links", (root) => {
  mkdirSync(join(root, "run/lock"), { recursive: true });
  mkdirSync(join(root, "var"));
  symlinkSync("/run/lock", join(root, "var/lock"));
  symlinkSync("../run", join(root, "var/run"));
  for (const path of ["/var/lock", "var/lock", "var/run/lock", "/../../var/./lock/", "//run//lock"]) {
    assert.equal(resolveBeneath(root, path), "/run/lock", path);
  }
  assert.equal(resolveBeneath(root, "/"), "/");
  assert.equal(resolveBeneath(root, ""), "/");
  assert.equal(resolveBeneath(root, "../../.."), "/");
  assert.throws(
    () => resolveBeneath(root, "/nowhere"),
    (error) => isFault(error, "not-found"),
  );
});

scenario("links to the outside, absolute or climbing, stay inside", async (root, outside) => {
  symlinkSync(join(outside, "secret"), join(root, "absolute"));
  symlinkSync("../../outside/secret", join(root, "climbing"));
  symlinkSync(outside, join(root, "directory"));
  symlinkSync("../outside", join(root, "beside"));
  for (const path of ["absolute", "climbing", "directory/secret", "beside/secret", "../outside/secret"]) {
    await assert.rejects(readFileBeneath(root, path, 100), (error) => isFault(error, "not-found"), path);
  }
});

scenario("a path that leads outside is made inside, and said to be contained", (root, outside) => {
  symlinkSync(outside, join(root, "absolute"));
  symlinkSync("../../outside", join(root, "climbing"));
  const absolute = makeDirBeneath(root, "absolute/made");
  assert.deepEqual(absolute, { path: join(outside, "made"), contained: true, created: true });
  assert.ok(statSync(join(root, outside, "made")).isDirectory());
  const climbing = makeFileBeneath(root, "climbing/file");
  assert.deepEqual(climbing, { path: "/outside/file", contained: true, created: true });
  assert.deepEqual(makeFileBeneath(root, "climbing/file"), { ...climbing, created: false });
});

scenario("what is there already stays as it is, and is not contained when it leads nowhere else", (root) => {
  mkdirSync(join(root, "a/b"), { recursive: true, mode: 0o700 });
  symlinkSync("b", join(root, "a/link"));
  assert.deepEqual(makeDirBeneath(root, "/a/link"), { path: "/a/b", contained: false, created: false });
  assert.equal(statSync(join(root, "a/b")).mode & 0o777, 0o700);
  writeFileSync(join(root, "a/file"), "kept");
  assert.deepEqual(makeFileBeneath(root, "a/file"), { path: "/a/file", contained: false, created: false });
  assert.equal(readFileSync(join(root, "a/file"), "utf8"), "kept");
});

scenario("what is made has the mode asked for, whatever the umask", (root) => {
  const umask = process.umask(0o077);
  try {
    makeDirBeneath(root, "one/two", { mode: 0o1777 });
    makeFileBeneath(root, "three/file", { mode: 0o4755 });
    makeFileBeneath(root, "plain");
  } finally {
    process.umask(umask);
  }
  const modes = ["one/two", "three", "three/file", "plain"].map((path) => statSync(join(root, path)).mode & 0o7777);
  assert.deepEqual(modes, [0o1777, 0o755, 0o4755, 0o644]);
});

scenario("a directory is no file, and a file no directory", async (root) => {
  mkdirSync(join(root, "directory"));
  writeFileSync(join(root, "file"), "");
  assert.throws(() => makeFileBeneath(root, "directory"), precondition);
  assert.throws(() => makeDirBeneath(root, "file"), precondition);
  assert.throws(() => makeDirBeneath(root, "file/inner"), precondition);
  assert.throws(() => makeDirBeneath(root, "file/.."), precondition);
  await assert.rejects(readFileBeneath(root, "directory", 10), precondition);
  await assert.rejects(writeFileBeneath(root, "directory", ""), precondition);
});

scenario("a dangling link is made to lead somewhere, inside", (root) => {
  symlinkSync("/run/not-yet", join(root, "lock"));
  assert.equal(makeDirBeneath(root, "lock/deep").path, "/run/not-yet/deep");
  symlinkSync("missing/../other", join(root, "odd"));
  assert.equal(makeDirBeneath(root, "odd").path, "/other");
});

scenario("loops of links are hostile, and end", async (root) => {
  symlinkSync("loop", join(root, "loop"));
  symlinkSync("ping", join(root, "pong"));
  symlinkSync("pong", join(root, "ping"));
  for (let depth = 0; depth < 50; depth += 1) symlinkSync(`chain-${depth + 1}`, join(root, `chain-${depth}`));
  for (const path of ["loop", "ping/x", "chain-0"]) {
    assert.throws(() => resolveBeneath(root, path), hostile, path);
    assert.throws(() => makeDirBeneath(root, path), hostile, path);
    assert.throws(() => makeFileBeneath(root, path), hostile, path);
    await assert.rejects(writeFileBeneath(root, path, ""), hostile, path);
  }
});

scenario("a magic link of proc leads nowhere", () => {
  // As if a container had the host's proc in its root: its `root` and `cwd` links lead to the host itself.
  for (const path of ["/self/root", "/self/cwd", "/self/root/etc/passwd", "/self/exe"]) {
    assert.throws(() => openBeneath("/proc", path, O_PATH), hostile, path);
    assert.throws(() => resolveBeneath("/proc", path), hostile, path);
  }
  assert.equal(resolveBeneath("/proc", "/self"), `/${process.pid}`);
});

scenario("a fifo in place of a file is refused, and nobody waits for it", async (root) => {
  await run(["mkfifo", join(root, "passwd")], {}, call);
  await assert.rejects(readFileBeneath(root, "passwd", 100), (error) => isFault(error, "hostile"));
  await writeFileBeneath(root, "passwd", "replaced");
  assert.equal(readFileSync(join(root, "passwd"), "utf8"), "replaced");
});

scenario("a giant file is refused without being read", async (root) => {
  writeFileSync(join(root, "group"), "");
  truncateSync(join(root, "group"), 2 ** 40);
  await assert.rejects(readFileBeneath(root, "group", 2 ** 20), (error) => isFault(error, "exhausted"));
  truncateSync(join(root, "group"), 2 ** 20);
  assert.equal((await readFileBeneath(root, "group", 2 ** 20)).length, 2 ** 20);
});

scenario("a file whose size is a lie is read up to the limit", async () => {
  // Files of proc say that they are empty.
  assert.ok((await readFileBeneath("/proc", "/version", 1000)).length > 0);
  await assert.rejects(readFileBeneath("/proc", "/version", 5), (error) => isFault(error, "exhausted"));
});

scenario("a write replaces the name, and touches no other name of the file", async (root, outside) => {
  writeFileSync(join(root, "first"), "shared");
  linkSync(join(root, "first"), join(root, "second"));
  const wrote = await writeFileBeneath(root, "first", "changed", { mode: 0o600 });
  assert.deepEqual(wrote, { path: "/first", contained: false, created: false });
  assert.equal(readFileSync(join(root, "second"), "utf8"), "shared");
  assert.equal(statSync(join(root, "first")).mode & 0o777, 0o600);
  symlinkSync(join(outside, "secret"), join(root, "link"));
  const contained = await writeFileBeneath(root, "link", "inside");
  assert.deepEqual(contained, { path: join(outside, "secret"), contained: true, created: true });
  assert.equal(readFileSync(join(root, outside, "secret"), "utf8"), "inside");
  assert.deepEqual(readdirSync(join(root, outside)), ["secret"], "no temporary file stays");
});

scenario("odd names: not UTF-8 is told, a NUL byte refused, newlines and spaces are names", async (root) => {
  mkdirSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0xfe])]));
  symlinkSync(Buffer.from([0xff, 0xfe]), join(root, "link"));
  assert.throws(
    () => resolveBeneath(root, "link"),
    (error) => isFault(error, "unsupported"),
  );
  assert.equal(makeDirBeneath(root, "a b\nc/ü").path, "/a b\nc/ü");
  assert.equal(resolveBeneath(root, "a b\nc/ü"), "/a b\nc/ü");
  for (const make of [makeDirBeneath, makeFileBeneath, resolveBeneath]) {
    assert.throws(
      () => make(root, "a\0b"),
      (error) => error instanceof Error,
    );
  }
  await assert.rejects(writeFileBeneath(root, "a\0b", ""), (error) => isFault(error, "invalid"));
});

scenario("while the attacker swaps a directory for a link, nothing is made outside", async (root, outside) => {
  const program = `
    const fs = require("node:fs"); const [root, outside] = process.argv.slice(1);
    fs.symlinkSync(outside, root + "/link"); fs.mkdirSync(root + "/real");
    console.log("ready");
    for (;;) {
      fs.renameSync(root + "/real", root + "/swap"); fs.renameSync(root + "/link", root + "/swap2");
      try { fs.renameSync(root + "/swap2", root + "/a"); fs.renameSync(root + "/a", root + "/link"); } catch {}
      try { fs.renameSync(root + "/swap", root + "/a"); fs.renameSync(root + "/a", root + "/real"); } catch {}
    }`;
  const attacker = stream([process.execPath, "-e", program, root, outside], {}, call);
  for await (const chunk of attacker.stdout) {
    assert.ok(String(chunk).includes("ready"));
    break;
  }
  let made = 0;
  for (let round = 0; round < 3000; round += 1) {
    try {
      makeFileBeneath(root, `a/file-${round}`);
      made += 1;
    } catch {
      // Whatever the swap makes of it: refused is fine, outside is not.
    }
  }
  attacker.kill("SIGKILL");
  await attacker.exited;
  assert.ok(made > 0);
});

test("any tree of links, any path: the result is the kernel's chroot view, never outside", async () => {
  const name = fc.constantFrom("a", "b", "c", "..", ".", "");
  const path = fc.array(name, { maxLength: 6 }).map((names) => names.join("/"));
  const target = fc.tuple(fc.constantFrom("", "/"), path).map(([front, rest]) => front + rest || ".");
  const links = fc.dictionary(fc.constantFrom("a", "b", "c", "d/a", "d/b"), target, { maxKeys: 5 });
  fc.assert(
    fc.property(links, path, (links, path) => {
      const directory = mkdtempSync(join(tmpdir(), "beneath."));
      try {
        const root = join(directory, "root");
        mkdirSync(join(root, "d/c"), { recursive: true });
        for (const [at, target] of Object.entries(links)) symlinkSync(target, join(root, at));
        const there = resolved(root, path);
        let made;
        try {
          made = makeDirBeneath(root, path);
        } catch (error) {
          assert.ok(isFault(error, "hostile") || isFault(error, "precondition"), String(error));
        }
        assert.deepEqual(readdirSync(directory), ["root"]);
        if (made === undefined) return;
        // What was made is where the kernel, confined to the root, finds it; and no part of its path is a link.
        assert.ok(lstatSync(join(root, made.path)).isDirectory());
        assert.equal(resolveBeneath(root, made.path), made.path);
        if (there !== undefined) assert.deepEqual([made.path, made.created], [there, false]);
        // A name before `..` need not be there for us; for the kernel it must.
        const after = resolved(root, path);
        assert.ok(after === made.path || after === undefined, String(after));
      } finally {
        rmSync(directory, { recursive: true });
      }
    }),
    { numRuns: 300 },
  );
});

/** Where the kernel says that a path leads; undefined when nowhere. */
function resolved(root: string, path: string): string | undefined {
  try {
    return resolveBeneath(root, path);
  } catch (error) {
    assert.ok(error instanceof Fault);
    return undefined;
  }
}

test("no descriptor is left open", async () => {
  const directory = mkdtempSync(join(tmpdir(), "beneath."));
  try {
    symlinkSync("loop", join(directory, "loop"));
    for (let round = 0; round < 20; round += 1) {
      makeDirBeneath(directory, `a/b/../c/${round}`);
      assert.throws(() => makeDirBeneath(directory, "loop"));
      assert.throws(() => resolveBeneath(directory, "none"));
      await writeFileBeneath(directory, "file", "x");
      await readFileBeneath(directory, "file", 1);
      await assert.rejects(readFileBeneath(directory, "a", 1));
      closeSync(openBeneath(directory, "a", O_PATH));
    }
    const open = readdirSync("/proc/self/fd").map((fd) => {
      return existsSync(`/proc/self/fd/${fd}`) ? readlinkSync(`/proc/self/fd/${fd}`) : "";
    });
    assert.deepEqual(
      open.filter((path) => path.startsWith(directory)),
      [],
    );
    assert.ok(existsSync(join(directory, "a/c/19")));
    renameSync(join(directory, "file"), join(directory, "other"));
    assert.equal(readlinkSync(join(directory, "loop")), "loop");
  } finally {
    rmSync(directory, { recursive: true });
  }
});
