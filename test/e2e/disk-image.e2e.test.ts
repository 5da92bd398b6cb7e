import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { TestDaemon } from "./daemon.ts";

/** The library of disk images, by the command line: what is good comes in, what is not is refused clearly and in time. */

/** However busy this machine is: an image of a few MiB is judged within this. */
const deadlineMs = 20_000;

let daemon: TestDaemon;
let server: Server;
let origin: string;
let isGood = true;

before(async () => {
  daemon = await TestDaemon.start({ sizeMib: 96, kind: "ext4" });
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", path("good.qcow2"), "1G"]);
  execFileSync("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 1M", path("good.qcow2")], { stdio: "ignore" });
  server = createServer((request, response) => {
    const name = (request.url ?? "").slice(1);
    if (name === "SHA256SUMS") response.end(`${sumOf("good.qcow2")}  good.qcow2\n${"0".repeat(64)}  lie.qcow2\n`);
    else response.end(readFileSync(path("good.qcow2")));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(async () => {
  server?.close();
  server?.closeAllConnections();
  await daemon?.[Symbol.asyncDispose]();
});

afterEach(() => {
  if (!isGood) assert.deepEqual(filesInLibrary(), [], "something of what was refused stayed");
});

function path(name: string): string {
  return join(daemon.root, name);
}

function sumOf(name: string): string {
  return createHash("sha256")
    .update(readFileSync(path(name)))
    .digest("hex");
}

function filesInLibrary(): string[] {
  const all = readdirSync(join(daemon.libDir, "image/disk"), { recursive: true, withFileTypes: true });
  return all.filter((entry) => entry.isFile()).map(({ name }) => name);
}

async function refused(argv: readonly string[], message: RegExp): Promise<void> {
  const startedMs = performance.now();
  const { code, stderr } = await daemon.croft(["image", "import", ...argv]);
  assert.notEqual(code, 0);
  assert.match(stderr, message);
  assert.match(stderr, /\n {2}\S/, "it says what to do");
  assert.ok(performance.now() - startedMs < deadlineMs);
  assert.deepEqual(filesInLibrary(), []);
}

test("broken and hostile images are refused, each with its reason, and nothing of them stays", async () => {
  isGood = false;
  execFileSync("cp", [path("good.qcow2"), path("cut.qcow2")]);
  truncateSync(path("cut.qcow2"), 300_000);
  await refused([path("cut.qcow2")], /cut\.qcow2: .*(broken|outside of the file)/);
  const create = ["create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", path("thief.qcow2"), "1G"];
  execFileSync("qemu-img", create);
  await refused([path("thief.qcow2")], /reads from another file, "\/etc\/passwd"/);
  execFileSync("xorriso", ["-report_about", "SORRY", "-as", "mkisofs", "-o", path("tools.iso"), path("good.qcow2")], {
    stdio: "ignore",
  });
  await refused([path("tools.iso")], /nothing vouches for the image tools\.iso/);
  await refused(
    [path("tools.iso"), "--checksum", `sha256:${"1".repeat(64)}`],
    /its checksum is sha256:[0-9a-f]{64}, and not/,
  );
  await refused([`${origin}/good.qcow2`], /nothing vouches for the image good\.qcow2/);
  await refused([`${origin}/lie.qcow2`, "--sums", `${origin}/SHA256SUMS`], /its checksum is sha256:/);
  await refused([`${origin}/other.qcow2`, "--sums", `${origin}/SHA256SUMS`], /does not name other\.qcow2/);
  execFileSync("qemu-img", ["create", "-q", "-f", "vmdk", path("foreign.vmdk"), "1G"]);
  await refused([path("foreign.vmdk")], /format VMDK/);
  writeFileSync(path("page.img"), "<html>404</html>");
  await refused([path("page.img")], /neither a qcow2 nor an ISO nor a raw disk/);
});

test("an image larger than the disk is refused, and there is room as before", async () => {
  isGood = false;
  execFileSync("dd", ["if=/dev/urandom", `of=${path("large.img")}`, "bs=1M", "count=120", "status=none"]);
  execFileSync("dd", ["if=/dev/zero", `of=${path("large.img")}`, "bs=512", "count=1", "conv=notrunc", "status=none"]);
  writeFileSync(path("signature"), "\x55\xaa", "latin1");
  execFileSync("dd", [
    `if=${path("signature")}`,
    `of=${path("large.img")}`,
    "bs=1",
    "seek=510",
    "conv=notrunc",
    "status=none",
  ]);
  await refused([path("large.img")], /only .* of the disk are free, and .* have to stay so/);
});

test("an image comes in by file and by URL, is listed, verified, named twice and taken away", async () => {
  isGood = true;
  const fromFile = await daemon.croft([
    "image",
    "import",
    path("good.qcow2"),
    "--checksum",
    `sha256:${sumOf("good.qcow2")}`,
  ]);
  assert.equal(fromFile.code, 0, fromFile.stderr);
  const fromUrl = await daemon.croft([
    "image",
    "import",
    `${origin}/good.qcow2`,
    "--sums",
    `${origin}/SHA256SUMS`,
    "--name",
    "again.qcow2",
  ]);
  assert.equal(fromUrl.code, 0, fromUrl.stderr);
  const { stdout } = await daemon.croft(["image", "ls", "--disks", "--json"]);
  assert.match(stdout, /again\.qcow2/);
  assert.match(stdout, new RegExp(sumOf("good.qcow2")));
  assert.equal(filesInLibrary().filter((name) => name === sumOf("good.qcow2")).length, 1, "one content");
  assert.equal((await daemon.croft(["image", "verify", "again.qcow2"])).code, 0);
  await daemon.kill9();
  await daemon.start();
  for (const name of ["good.qcow2", "again.qcow2"]) {
    const { code, stderr } = await daemon.croft(["image", "rm", name]);
    assert.equal(code, 0, stderr);
  }
  assert.deepEqual(filesInLibrary(), []);
});
