import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { backgroundCall, type Call, type Progress, systemClock } from "../../base/call.ts";
import { type Fault, isFault } from "../../base/fault.ts";
import { sha256 } from "../../base/id.ts";
import { TestClock } from "../../base/test-clock.ts";
import type { DiskImage, DiskImport, DiskSource, ImageChecksum } from "./contract.ts";
import { checksumOf, iso, qcow2, rawDisk } from "./image-fixture.ts";
import { DiskLibrary, type LibraryOptions } from "./library.ts";

/** Pauses between attempts take no time here. */
const call: Call = { ...backgroundCall(), clock: { ...systemClock, sleep: () => Promise.resolve() } };
const directory = mkdtempSync(join(tmpdir(), "library."));
const servers: Server[] = [];
let libDir: string;
let library: DiskLibrary;
let holders: string[];

beforeEach(async () => {
  libDir = mkdtempSync(join(directory, "lib."));
  holders = [];
  library = await open();
});

after(() => {
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
  rmSync(directory, { recursive: true });
});

function open(options: Partial<LibraryOptions> = {}): Promise<DiskLibrary> {
  return DiskLibrary.open({ libDir, holdersOf: async () => holders, ...options });
}

function file(bytes: Uint8Array, name = "debian.qcow2"): DiskSource {
  const path = join(mkdtempSync(join(directory, "source.")), name);
  writeFileSync(path, bytes);
  return { kind: "file", path };
}

function digestOf(bytes: Uint8Array, algorithm: "sha256" | "sha512" = "sha256"): ImageChecksum {
  return { kind: "digest", digest: checksumOf(bytes, algorithm) };
}

function request(source: DiskSource, more: Partial<DiskImport> = {}): DiskImport {
  return { source, allowUnverified: false, replace: false, ...more };
}

async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function refused(working: Promise<unknown>, reason: Fault["reason"], message: RegExp): Promise<void> {
  return assert.rejects(working, (error) => {
    assert.ok(isFault(error, reason), String(error));
    assert.match(error.message, message);
    return true;
  });
}

/** All that is in the library, by its folders. */
function files(): string[] {
  const root = join(libDir, "image/disk");
  const found = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return found.map(({ parentPath, name }) => join(parentPath.slice(root.length + 1), name));
}

test("a file is imported under its own name, and is what it was, read-only", async () => {
  const bytes = qcow2();
  const image = await library.import(request(file(bytes), { checksum: digestOf(bytes) }), call);
  const { path, sizeBytes, importedMs, ...rest } = image;
  assert.deepEqual(rest, {
    digest: sha256(bytes),
    names: ["debian.qcow2"],
    format: "qcow2",
    kind: "disk",
    virtualSizeBytes: 2 ** 30,
    verified: "checksum",
    origin: "debian.qcow2",
  });
  assert.ok(bytes.equals(readFileSync(path)));
  assert.equal(statSync(path).mode & 0o777, 0o444);
  assert.ok(sizeBytes > 0 && sizeBytes < bytes.length + 65_536);
  assert.ok(importedMs > 1.7e12);
  assert.deepEqual(await library.find("debian.qcow2", call), image);
  assert.deepEqual(await library.get(image.digest, call), image);
  assert.deepEqual(await library.list(call), [image]);
  assert.deepEqual(await library.verify("debian.qcow2", call), image);
  assert.deepEqual(await (await open()).list(call), [image], "another daemon finds it");
});

test("what is not there is not found", async () => {
  assert.equal(await library.find("nothing", call), undefined);
  assert.equal(await library.find("../about", call), undefined);
  await refused(library.get(sha256("nothing"), call), "not-found", /there is no disk image sha256/);
  await refused(library.verify("nothing", call), "not-found", /there is no disk image nothing/);
  await library.remove("nothing", call);
});

test("ISOs, raw disks and everything from a URL need a checksum or a word; a disk of one's own does not", async () => {
  const url = `${await serve((_, response) => response.end(rawDisk()))}/disk.raw`;
  await refused(
    library.import(request(file(iso(), "a.iso")), call),
    "precondition",
    /nothing vouches for the image a.iso/,
  );
  await refused(library.import(request({ kind: "url", url }), call), "precondition", /nothing vouches/);
  assert.deepEqual(files(), []);
  const disk = await library.import(request(file(rawDisk(), "own.raw")), call);
  assert.deepEqual([disk.verified, disk.kind, disk.format], ["no", "disk", "raw"]);
  const allowed = await library.import(request(file(iso(), "a.iso"), { allowUnverified: true }), call);
  assert.deepEqual([allowed.verified, allowed.kind], ["no", "iso"]);
  const known = await library.import(request(file(iso(), "a.iso"), { checksum: digestOf(iso(), "sha512") }), call);
  assert.deepEqual([known.digest, known.verified], [allowed.digest, "checksum"], "vouched for later");
});

test("another checksum than was given is refused, and nothing stays", async () => {
  const wrong = { kind: "digest", digest: checksumOf(iso(41)) } as const;
  await refused(
    library.import(request(file(iso(), "lie.iso"), { checksum: wrong }), call),
    "corrupt",
    /its checksum is sha256:/,
  );
  const url = `${await serve((_, response) => response.end(iso()))}/lie.iso`;
  await refused(library.import(request({ kind: "url", url }, { checksum: wrong }), call), "corrupt", /its checksum is/);
  assert.deepEqual(files(), []);
  const nonsense = library.import(request(file(iso()), { checksum: { kind: "digest", digest: "sha256:12" } }), call);
  await refused(nonsense, "invalid", /is not a checksum/);
});

test("a compressed image is held against its checksum as it came, and lies here unpacked", async () => {
  const bytes = rawDisk(3 * 2 ** 20);
  const packed: Record<string, Buffer> = {
    ".gz": gzipSync(bytes),
    ".zst": zstdCompressSync(bytes),
    ".xz": execFileSync("xz", ["--stdout"], { input: bytes }),
  };
  for (const [ending, came] of Object.entries(packed)) {
    const image = await library.import(request(file(came, `disk.raw${ending}`), { checksum: digestOf(came) }), call);
    assert.deepEqual([image.names, image.digest], [["disk.raw"], sha256(bytes)]);
    assert.ok(image.sizeBytes < 2 ** 20, `zeros take no room: ${image.sizeBytes}`);
    assert.equal(image.virtualSizeBytes, bytes.length);
    await library.remove("disk.raw", call);
    assert.deepEqual(files(), []);
  }
});

test("what is packed otherwise, cut off or twice is refused", async () => {
  const broken: readonly (readonly [Buffer, Fault["reason"], RegExp])[] = [
    [gzipSync(rawDisk()).subarray(0, 500), "corrupt", /cannot be unpacked/],
    [execFileSync("xz", ["--stdout"], { input: rawDisk() }).subarray(0, 100), "corrupt", /cannot be unpacked/],
    [zstdCompressSync(rawDisk()).subarray(0, 40), "corrupt", /cannot be unpacked/],
    [gzipSync(gzipSync(rawDisk())), "unsupported", /neither a qcow2/],
    [Buffer.from("BZh91AY&SY"), "unsupported", /packed with bzip2/],
    [Buffer.from("PK\x03\x04zip"), "unsupported", /packed with zip/],
  ];
  for (const [bytes, reason, message] of broken)
    await refused(library.import(request(file(bytes)), call), reason, message);
  assert.deepEqual(files(), []);
});

test("what grows without bounds is stopped", async () => {
  const zeros = gzipSync(rawDisk(64 * 2 ** 20));
  const limits = { ratioFloorBytes: 2 ** 20, maxRatio: 100 };
  library = await open({ limits });
  await refused(library.import(request(file(zeros)), call), "hostile", /bytes unpack to more than/);
  library = await open({ limits: { maxUnpackedBytes: 16 * 2 ** 20 } });
  for (const bytes of [zeros, execFileSync("xz", ["--stdout"], { input: rawDisk(64 * 2 ** 20) })]) {
    await refused(library.import(request(file(bytes)), call), "exhausted", /unpacked, the image has more than 16 MiB/);
  }
  library = await open({ limits: { maxReceivedBytes: 1000 } });
  await refused(library.import(request(file(rawDisk())), call), "exhausted", /larger than the .* allowed/);
  library = await open({ limits: { maxVirtualBytes: 2 ** 29 } });
  await refused(library.import(request(file(qcow2())), call), "exhausted", /it claims to be 1 GiB large/);
  assert.deepEqual(files(), []);
});

test("hostile and broken images are refused, and nothing stays", async () => {
  const unaligned = qcow2();
  unaligned.writeBigUInt64BE(0x8000_0000_0000_0000n | 12_345n, 3 * 65_536);
  const cases: readonly (readonly [Buffer, Fault["reason"], RegExp])[] = [
    [qcow2(2 ** 30, "/etc/shadow"), "hostile", /reads from another file, "\/etc\/shadow"/],
    [qcow2().subarray(0, 100_000), "corrupt", /outside of the file/],
    [unaligned, "corrupt", /QEMU finds it broken/],
    [Buffer.from("KDMV and so on"), "unsupported", /VMDK/],
    [Buffer.from("<html>"), "unsupported", /neither/],
  ];
  for (const [bytes, reason, message] of cases)
    await refused(library.import(request(file(bytes)), call), reason, message);
  assert.deepEqual(files(), []);
});

test("names are letters, digits, dots, dashes and underscores, and come from the origin", async () => {
  const bytes = rawDisk();
  const source = { kind: "bytes", filename: "../up/Disk_1.raw.gz", bytes: [bytes].values() } as unknown as DiskSource;
  assert.deepEqual((await library.import(request(source), call)).names, ["Disk_1.raw"]);
  for (const name of ["", ".hidden", "a/b", "..", "a b", "x".repeat(129)]) {
    await refused(library.import(request(file(bytes), { name }), call), "invalid", /cannot be called/);
  }
  await refused(
    library.import(request(file(bytes, "with blank.raw")), call),
    "invalid",
    /cannot be called "with blank.raw"/,
  );
});

test("bytes that a client sends are taken as they come, all of them", async () => {
  const bytes = rawDisk();
  const source = (sizeBytes: number): DiskSource => ({
    kind: "bytes",
    filename: "sent.raw",
    sizeBytes,
    bytes: (async function* () {
      for (let at = 0; at < bytes.length; at += 10_000) yield bytes.subarray(at, at + 10_000);
    })(),
  });
  assert.equal((await library.import(request(source(bytes.length)), call)).digest, sha256(bytes));
  await refused(
    library.import(request(source(bytes.length + 1), { name: "short" }), call),
    "corrupt",
    /where 1048577 were said/,
  );
});

test("the same again costs nothing; another under the same name has to be meant", async () => {
  let asked = 0;
  let bytes = rawDisk();
  const url = `${await serve((_, response) => {
    asked += 1;
    response.end(bytes);
  })}/disk.raw?ticket=secret`;
  const first = await library.import(request({ kind: "url", url }, { checksum: digestOf(bytes) }), call);
  assert.equal(first.origin, url.slice(0, url.indexOf("?")), "a ticket is nobody's business");
  assert.deepEqual(await library.import(request({ kind: "url", url }, { checksum: digestOf(bytes) }), call), first);
  const second = await library.import(request({ kind: "url", url }, { checksum: digestOf(bytes), name: "also" }), call);
  assert.deepEqual([second.digest, second.names], [first.digest, ["also", "disk.raw"]]);
  assert.equal(asked, 1);
  bytes = rawDisk(2 ** 21);
  const other = { checksum: digestOf(bytes) };
  await refused(
    library.import(request({ kind: "url", url }, other), call),
    "already-exists",
    /another image disk.raw already/,
  );
  await refused(
    library.import(request(file(bytes, "disk.raw")), call),
    "already-exists",
    /another image disk.raw already/,
  );
  assert.equal(asked, 1, "refused before it is fetched");
  const replaced = await library.import(request({ kind: "url", url }, { ...other, replace: true }), call);
  assert.deepEqual(replaced.names, ["disk.raw"]);
  assert.deepEqual((await library.get(first.digest, call)).names, ["also"], "the other one is still here");
});

test("a download that is lost in the middle goes on where it stopped, also in the next call and the next daemon", async () => {
  const bytes = Buffer.concat([
    rawDisk(2 ** 20),
    Buffer.from(Array.from({ length: 500_000 }, (_, at) => (at * 7) & 255)),
  ]);
  let allowed = 400_000;
  const starts: number[] = [];
  const url = `${await serve((incoming, response) => {
    const start = Number(/^bytes=([0-9]+)-$/.exec(incoming.headers.range ?? "")?.[1] ?? 0);
    starts.push(start);
    response.writeHead(start === 0 ? 200 : 206, {
      "content-length": bytes.length - start,
      ...(start === 0 ? {} : { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
    });
    if (allowed >= bytes.length) return response.end(bytes.subarray(start));
    return response.write(bytes.subarray(start, Math.max(start, allowed)), () => response.destroy());
  })}/disk.raw`;
  const wanted = request({ kind: "url", url }, { checksum: digestOf(bytes) });
  await refused(library.import(wanted, call), "unavailable", /times in a row/);
  assert.equal(files().length, 1);
  allowed = bytes.length;
  starts.length = 0;
  library = await open();
  assert.equal((await library.import(wanted, call)).digest, sha256(bytes));
  assert.equal(starts.length, 1);
  assert.ok((starts[0] ?? 0) > 100_000, `it went on at ${starts[0]}`);
  assert.ok(!files().some((name) => name.startsWith("part")));
});

test("a part that belonged to something else is thrown away, and all of it fetched", async () => {
  const bytes = rawDisk();
  let asked = 0;
  let isDown = true;
  const url = `${await serve((incoming, response) => {
    asked += 1;
    const start = Number(/^bytes=([0-9]+)-$/.exec(incoming.headers.range ?? "")?.[1] ?? 0);
    if (isDown)
      return response
        .writeHead(200, { "content-length": 1e6 })
        .write(Buffer.alloc(200_000, 1), () => response.destroy());
    const range = { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` };
    return response.writeHead(start === 0 ? 200 : 206, start === 0 ? {} : range).end(bytes.subarray(start));
  })}/disk.raw`;
  const wanted = request({ kind: "url", url }, { checksum: digestOf(bytes) });
  await refused(library.import(wanted, call), "unavailable", /./);
  isDown = false;
  asked = 0;
  assert.equal((await library.import(wanted, call)).digest, sha256(bytes));
  assert.equal(asked, 2);
});

test("redirects lead to mirrors, also without TLS, but from elsewhere never to this machine", async () => {
  const bytes = rawDisk();
  const mirror = await serve((_, response) => response.end(bytes));
  const url = `${await serve((_, response) => response.writeHead(302, { location: `${mirror}/pool/x` }).end())}/disk.raw`;
  assert.equal(
    (await library.import(request({ kind: "url", url }, { checksum: digestOf(bytes) }), call)).names[0],
    "disk.raw",
  );
  const file = { kind: "url", url: "file:///etc/shadow" } as const;
  await refused(
    library.import(request(file, { checksum: digestOf(bytes) }), call),
    "invalid",
    /not an address of the web/,
  );
  const missing = `${await serve((_, response) => response.writeHead(404).end())}/gone.raw`;
  await refused(
    library.import(request({ kind: "url", url: missing }, { checksum: digestOf(rawDisk(512)) }), call),
    "not-found",
    /404/,
  );
});

test("a list of checksums vouches for the file that it names", async () => {
  const bytes = iso();
  const hex = checksumOf(bytes, "sha512").slice("sha512:".length);
  const origin = await serve((incoming, response) => {
    if (incoming.url === "/SHA512SUMS") response.end(`${"0".repeat(128)}  other.iso\n${hex}  debian.iso\n`);
    else response.end(bytes);
  });
  const checksum: ImageChecksum = { kind: "list", list: { kind: "url", url: `${origin}/SHA512SUMS` } };
  const image = await library.import(request({ kind: "url", url: `${origin}/debian.iso` }, { checksum }), call);
  assert.equal(image.verified, "checksum");
  const other = library.import(request({ kind: "url", url: `${origin}/other.iso` }, { checksum }), call);
  await refused(other, "corrupt", /its checksum is sha512:/);
  const unnamed = library.import(request({ kind: "url", url: `${origin}/unnamed.iso` }, { checksum }), call);
  await refused(unnamed, "not-found", /does not name unnamed.iso/);
});

test("a cancelled import leaves nothing, but what a repeated download can use", async () => {
  const controller = new AbortController();
  const url = `${await serve((_, response) => {
    response.writeHead(200, { "content-length": 10_000_000 });
    response.write(Buffer.alloc(3_000_000, 1), () => setTimeout(() => controller.abort(), 50));
  })}/disk.raw`;
  const cancelled = { ...backgroundCall(systemClock, controller.signal) };
  const importing = library.import(request({ kind: "url", url }, { checksum: digestOf(rawDisk()) }), cancelled);
  await refused(importing, "cancelled", /./);
  assert.ok(files().every((name) => name.startsWith("part")));
  await refused(library.import(request(file(rawDisk())), cancelled), "cancelled", /./);
  const later = new AbortController();
  const sent = async function* (): AsyncGenerator<Uint8Array> {
    yield rawDisk();
    later.abort();
    yield rawDisk();
  };
  const never = { kind: "bytes", filename: "x.raw", bytes: sent() } as const;
  await refused(library.import(request(never), backgroundCall(systemClock, later.signal)), "cancelled", /./);
  assert.ok(files().every((name) => name.startsWith("part")));
});

test("progress tells what is done and how much there is", async () => {
  const progress: Progress[] = [];
  const bytes = rawDisk(12 * 2 ** 20);
  await library.import(request(file(bytes, "disk.raw")), { ...call, report: (one) => progress.push(one) });
  const received = progress.filter(({ state }) => state === "receiving");
  assert.ok(received.length >= 2);
  assert.deepEqual(received.at(-1)?.total, bytes.length);
  assert.ok(progress.every(({ topic }) => topic === "import disk.raw"));
  assert.ok(progress.some(({ state }) => state === "checking"));
});

test("what changed on the disk is found out by verify, refused from then on, and mended by importing again", async () => {
  const bytes = rawDisk();
  const wanted = request(file(bytes, "disk.raw"), { checksum: digestOf(bytes) });
  const { path, digest } = await library.import(wanted, call);
  const changed = Buffer.from(bytes);
  changed[5000] = 1;
  chmodSync(path, 0o600);
  writeFileSync(path, changed);
  await library.find("disk.raw", call);
  await refused(library.verify("disk.raw", call), "corrupt", /is not what was imported any more/);
  await refused(library.find("disk.raw", call), "corrupt", /is not what was imported/);
  assert.equal((await library.list(call)).length, 1, "it is still listed");
  assert.equal((await library.import(wanted, call)).digest, digest);
  await library.verify("disk.raw", call);
  rmSync(path);
  await refused(library.get(digest, call), "corrupt", /./);
  await library.import(wanted, call);
  await library.verify("disk.raw", call);
});

test("an image that a disk reads from is not removed; its last name takes the content away", async () => {
  const image = await library.import(request(file(rawDisk(), "disk.raw")), call);
  await library.import(request(file(rawDisk(), "disk.raw"), { name: "also" }), call);
  holders = ["root of shop.files.1.0123abcd"];
  await library.remove("also", call);
  await refused(library.remove("disk.raw", call), "precondition", /disks read from it: root of shop.files.1.0123abcd/);
  assert.deepEqual((await library.find("disk.raw", call))?.names, ["disk.raw"]);
  holders = [];
  await library.remove("disk.raw", call);
  assert.equal(await library.find("disk.raw", call), undefined);
  await refused(library.get(image.digest, call), "not-found", /./);
  assert.deepEqual(files(), []);
});

test("a disk that is made while its image is being removed keeps it", async () => {
  let asked = 0;
  library = await open({ holdersOf: async () => ((asked += 1) > 1 ? ["root of shop.files.1.0123abcd"] : []) });
  const { path } = await library.import(request(file(rawDisk(), "disk.raw")), call);
  await refused(library.remove("disk.raw", call), "precondition", /disks read from it/);
  assert.ok(statSync(path).isFile());
  await library.verify("disk.raw", call);
});

test("what has no name is collected, unless it is kept or a disk reads from it", async () => {
  const [first, second] = [rawDisk(), rawDisk(2 ** 21)];
  const { digest } = await library.import(request(file(first, "disk.raw")), call);
  await library.import(request(file(second, "disk.raw"), { replace: true }), call);
  assert.deepEqual(await library.collect([digest], call), { images: 0, freedBytes: 0 });
  holders = ["root of shop.files.1.0123abcd"];
  assert.deepEqual(await library.collect([], call), { images: 0, freedBytes: 0 });
  holders = [];
  const { images, freedBytes } = await library.collect([], call);
  assert.equal(images, 1);
  assert.ok(freedBytes > 0);
  assert.equal((await library.list(call)).length, 1);
});

test("what comes without a name is kept for a day, then by what needs it, and can be discarded at once", async () => {
  const clock = new TestClock();
  const later = backgroundCall(clock);
  const nameless = (bytes: Buffer): Promise<DiskImage> =>
    library.importNameless({ source: file(bytes, "root.raw"), allowUnverified: true }, later);
  const { digest, names } = await nameless(rawDisk());
  assert.deepEqual(names, []);
  assert.equal((await library.collect([], later)).images, 0);
  await clock.advance(25 * 3600_000);
  assert.equal((await library.collect([digest], later)).images, 0);
  // The same once more is a reason of its own.
  await nameless(rawDisk());
  assert.equal((await library.collect([], later)).images, 0);
  await clock.advance(25 * 3600_000);
  assert.equal((await library.collect([], later)).images, 1);
  await nameless(rawDisk());
  holders = ["root of shop.files.1.0123abcd"];
  await library.discard(digest, later);
  assert.equal((await library.list(later)).length, 1);
  holders = [];
  await library.discard(digest, later);
  await library.discard(digest, later);
  assert.deepEqual(await library.list(later), []);
  assert.deepEqual(files(), []);
  // A name is a name, however the content came.
  await nameless(rawDisk());
  await library.import(request(file(rawDisk(), "disk.raw")), call);
  await library.discard(digest, later);
  assert.deepEqual((await library.find("disk.raw", call))?.names, ["disk.raw"]);
});

test("what an interruption left is settled when the library is opened", async () => {
  const { path } = await library.import(request(file(rawDisk(), "disk.raw")), call);
  const root = join(libDir, "image/disk");
  writeFileSync(join(root, "tmp/half"), "x");
  writeFileSync(join(root, "content", "f".repeat(64)), "without anything known about it");
  execFileSync("mv", [path, `${path}~removed`]);
  library = await open();
  await library.verify("disk.raw", call);
  assert.equal(files().length, 3);
  rmSync(join(root, "about", readdirSync(join(root, "about"))[0] ?? ""));
  library = await open();
  assert.equal(await library.find("disk.raw", call), undefined);
  assert.deepEqual(await library.list(call), []);
  await library.import(request(file(rawDisk(2 ** 21), "disk.raw")), call);
});

test("imports of the same at once are one", async () => {
  let asked = 0;
  const bytes = rawDisk();
  const url = `${await serve((_, response) => {
    asked += 1;
    response.end(bytes);
  })}/disk.raw`;
  const wanted = request({ kind: "url", url }, { checksum: digestOf(bytes) });
  const images = await Promise.all([1, 2, 3].map(() => library.import(wanted, call)));
  assert.equal(asked, 1);
  assert.equal(new Set(images.map(({ digest }) => digest)).size, 1);
});
