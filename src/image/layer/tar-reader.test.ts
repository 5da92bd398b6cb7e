import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../../base/fault.ts";
import { entry, gnuMagic, headerBlock, pax, tar } from "./tar-fixture.ts";
import { TarReader, type TarEntry } from "./tar-reader.ts";

interface Read extends TarEntry {
  readonly content: string;
}

/** All entries of `bytes`, pushed in pieces that end where `cuts` say. */
function read(bytes: Buffer, cuts: readonly number[] = []): Read[] {
  const entries: { entry: TarEntry; content: string }[] = [];
  const reader = new TarReader({
    begin: (entry) => entries.push({ entry, content: "" }),
    data: (piece) => {
      const last = entries.at(-1);
      if (last !== undefined) last.content += piece.toString("latin1");
    },
    end: () => {},
  });
  let from = 0;
  for (const cut of [...new Set(cuts)].filter((at) => at < bytes.length).sort((left, right) => left - right)) {
    reader.push(bytes.subarray(from, cut));
    from = cut;
  }
  reader.push(bytes.subarray(from));
  reader.end();
  return entries.map(({ entry, content }) => ({ ...entry, content }));
}

function only(bytes: Buffer): Read {
  const entries = read(bytes);
  assert.equal(entries.length, 1);
  return entries[0] as Read;
}

function refuses(bytes: Buffer, reason: "corrupt" | "hostile" | "exhausted", pattern: RegExp): void {
  assert.throws(
    () => read(bytes),
    (thrown) => isFault(thrown, reason) && pattern.test(thrown.message),
  );
}

test("a plain file has its name, content, owner, mode and time", () => {
  const header = { name: "a/b", mode: 0o4755, uid: 1000, gid: 100, mtimeSec: 1_700_000_000 };
  const found = only(tar(entry(header, "hello")));
  assert.deepEqual(
    [found.path, found.content, found.mode, found.uid, found.gid, found.mtimeSec, found.mtimeNsec, found.type],
    ["a/b", "hello", 0o4755, 1000, 100, 1_700_000_000, 0, "file"],
  );
});

test("however a tar is cut into pieces, the same entries come out", () => {
  const bytes = tar(
    pax([["path", "p".repeat(300)]]),
    entry({}, "x".repeat(1500)),
    entry({ name: "././@LongLink", type: "L", magic: gnuMagic }, `${"l".repeat(600)}\0`),
    entry({ magic: gnuMagic }, "short"),
    entry({ name: "d/", type: "5" }),
  );
  const whole = read(bytes);
  assert.equal(whole.length, 3);
  fc.assert(
    fc.property(fc.array(fc.nat(bytes.length)), (cuts) => assert.deepEqual(read(bytes, cuts), whole)),
    { numRuns: 200 },
  );
});

test("ustar joins prefix and name, star's shorter prefix is known by its mark, GNU has none", () => {
  assert.equal(only(tar(entry({ prefix: "long/way", name: "file" }))).path, "long/way/file");
  const star = entry({
    patch: (block) => {
      block.write("p".repeat(131), 345, "latin1");
      block.write("00000000000 ", 476, "latin1");
      block.write("tar\0", 508, "latin1");
    },
  });
  assert.equal(only(tar(star)).path, `${"p".repeat(131)}/file`);
  assert.equal(only(tar(entry({ prefix: "12345", magic: gnuMagic }))).path, "file");
});

test("a v7 file whose name ends in a slash is a directory", () => {
  assert.equal(only(tar(entry({ name: "d/", type: "\0", magic: "" }))).type, "directory");
});

test("PAX records override the header, an empty one does not", () => {
  const bytes = tar(
    pax([
      ["path", "naïve"],
      ["uid", "3000000"],
      ["gid", ""],
      ["mtime", "-1.25"],
      ["SCHILY.xattr.user.a", "one\0two"],
    ]),
    entry({ name: "x", uid: 5, gid: 6 }, "y"),
  );
  const found = only(bytes);
  assert.deepEqual([found.path, found.uid, found.gid], ["naïve", 3_000_000, 6]);
  assert.deepEqual([found.mtimeSec, found.mtimeNsec], [-2, 750_000_000]);
  assert.deepEqual([...found.xattrs], [["user.a", "one\0two"]]);
});

test("a global PAX header holds for what follows, and a local one goes before it", () => {
  const entries = read(
    tar(
      pax([["uid", "7"]], "g"),
      entry({ name: "a" }),
      pax([["uid", "8"]]),
      entry({ name: "b" }),
      entry({ name: "c" }),
    ),
  );
  assert.deepEqual(
    entries.map(({ uid }) => uid),
    [7, 8, 7],
  );
});

test("extended attributes of a global header are there for every entry, and are not copied for each", () => {
  const entries = read(
    tar(
      pax([["SCHILY.xattr.user.a", "1"]], "g"),
      entry({ name: "a" }),
      entry({ name: "b" }),
      pax([["SCHILY.xattr.user.b", "2"]]),
      entry({ name: "c" }),
      pax([["SCHILY.xattr.user.a", "3"]], "g"),
      entry({ name: "d" }),
    ),
  );
  const found = entries.map(({ xattrs }) => Object.fromEntries(xattrs));
  assert.deepEqual(found, [{ "user.a": "1" }, { "user.a": "1" }, { "user.a": "1", "user.b": "2" }, { "user.a": "3" }]);
  assert.equal(entries[0]?.xattrs, entries[1]?.xattrs);
});

test("what costs time at every entry is not taken from a global header", () => {
  const many = Array.from({ length: 1001 }, (_, index) => [`SCHILY.xattr.user.${index}`, ""] as const);
  refuses(tar(pax(many, "g"), entry({})), "exhausted", /more than 1000 records/);
  refuses(tar(pax(many), entry({})), "exhausted", /more than 1000 records/);
  assert.equal(only(tar(pax(many.slice(1)), entry({}))).xattrs.size, 1000);
  const map = [
    ["GNU.sparse.size", "10000"],
    ["GNU.sparse.map", "0,1"],
  ] as const;
  assert.equal(only(tar(pax(map, "g"), entry({}, "x"))).extents, undefined);
  refuses(tar(pax([["mtime", `1.${"0".repeat(1000)}`]]), entry({})), "corrupt", /PAX time/);
});

test("GNU long names and link targets", () => {
  const found = only(
    tar(
      entry({ name: "././@LongLink", type: "K", magic: gnuMagic }, `${"t".repeat(200)}\0`),
      entry({ name: "././@LongLink", type: "L", magic: gnuMagic }, `${"n".repeat(500)}\0`),
      entry({ name: "cut", type: "2", linkName: "cut", magic: gnuMagic }),
    ),
  );
  assert.deepEqual([found.path, found.linkPath], ["n".repeat(500), "t".repeat(200)]);
});

test("numbers in base 256, also negative", () => {
  const found = only(
    tar(
      entry({
        patch: (block) => {
          block.fill(0, 108, 116);
          block.writeUInt8(0x80, 108);
          block.writeUInt32BE(4_000_000_000, 112);
          block.fill(0xff, 136, 148);
          block.writeInt32BE(-5, 144);
        },
      }),
    ),
  );
  assert.deepEqual([found.uid, found.mtimeSec], [4_000_000_000, -5]);
});

function oldExtent(block: Buffer, at: number, offset: number, size: number): void {
  block.write(`${offset.toString(8).padStart(11, "0")}\0${size.toString(8).padStart(11, "0")}\0`, at, "latin1");
}

test("sparse files of the old GNU format, with continuation", () => {
  const header = headerBlock({
    type: "S",
    magic: gnuMagic,
    sizeBytes: 5,
    patch: (block) => {
      for (let index = 0; index < 4; index += 1) oldExtent(block, 386 + index * 24, index * 10_000, 1);
      block.writeUInt8(1, 482);
      block.write("00000200000\0", 483, "latin1");
    },
  });
  const more = Buffer.alloc(512);
  oldExtent(more, 0, 60_000, 1);
  const found = only(tar(header, more, Buffer.from("abcde".padEnd(512, "\0"))));
  assert.deepEqual([found.sizeBytes, found.content, found.extents?.length], [0o200000, "abcde", 5]);
  assert.deepEqual(found.extents?.at(-1), { offset: 60_000, sizeBytes: 1 });
});

test("sparse files of PAX formats 0.0, 0.1 and 1.0 say the same", () => {
  const extents = [
    { offset: 0, sizeBytes: 2 },
    { offset: 9000, sizeBytes: 3 },
  ];
  const forms = [
    tar(
      pax([
        ["GNU.sparse.size", "10000"],
        ["GNU.sparse.numblocks", "2"],
        ["GNU.sparse.offset", "0"],
        ["GNU.sparse.numbytes", "2"],
        ["GNU.sparse.offset", "9000"],
        ["GNU.sparse.numbytes", "3"],
      ]),
      entry({ name: "s" }, "abcde"),
    ),
    tar(
      pax([
        ["GNU.sparse.size", "10000"],
        ["GNU.sparse.numblocks", "2"],
        ["GNU.sparse.name", "s"],
        ["GNU.sparse.map", "0,2,9000,3"],
      ]),
      entry({ name: "GNUSparseFile.1/s" }, "abcde"),
    ),
    tar(
      pax([
        ["GNU.sparse.major", "1"],
        ["GNU.sparse.minor", "0"],
        ["GNU.sparse.name", "s"],
        ["GNU.sparse.realsize", "10000"],
      ]),
      entry({ name: "GNUSparseFile.1/s" }, "2\n0\n2\n9000\n3\n".padEnd(512, "\0") + "abcde"),
    ),
  ];
  for (const form of forms) {
    const found = only(form);
    assert.deepEqual([found.path, found.sizeBytes, found.content], ["s", 10_000, "abcde"]);
    assert.deepEqual(found.extents, extents);
  }
});

function sparse(map: string, data: string): Buffer {
  const records = [
    ["GNU.sparse.size", "10000"],
    ["GNU.sparse.map", map],
  ] as const;
  return tar(pax(records), entry({}, data));
}

test("sparse maps that lie are refused", () => {
  refuses(sparse("0,2,1,2", "abcd"), "corrupt", /overlaps/);
  refuses(sparse("9999,2", "ab"), "corrupt", /beyond its size/);
  refuses(sparse("0,3", "ab"), "corrupt", /holds 3 bytes where 2/);
  refuses(sparse("0,2,5", "ab"), "corrupt", /without a length/);
  refuses(sparse("0,-2", "ab"), "corrupt", /not a whole number/);
  const leading = [
    ["GNU.sparse.major", "1"],
    ["GNU.sparse.realsize", "9"],
  ] as const;
  refuses(tar(pax(leading), entry({}, "9999\n".padEnd(512, "0000\n"))), "corrupt", /does not end within/);
  refuses(tar(pax(leading), entry({}, "99999999\n".padEnd(512, "\0"))), "exhausted", /more than/);
});

test("headers that lie are refused", () => {
  const broken = entry({}, "x");
  broken[0] = 0x7a;
  refuses(tar(broken), "corrupt", /checksum/);
  refuses(tar(entry({ patch: (block) => void block.write("9", 110, "latin1") })), "corrupt", /owner/);
  refuses(tar(entry({ type: "Q" })), "corrupt", /type "Q"/);
  refuses(tar(pax([["size", "x"]]), entry({})), "corrupt", /PAX size/);
  refuses(tar(pax([["path", "a\0b"]]), entry({})), "hostile", /NUL/);
  refuses(tar(entry({ name: "x", type: "x" }, "99 path=a\n"), entry({})), "corrupt", /lies about its length/);
  refuses(tar(entry({ name: "x", type: "x" }, "10 pathabc\n"), entry({})), "corrupt", /PAX record/);
  refuses(tar(headerBlock({ type: "x", sizeBytes: 2 ** 21 })), "exhausted", /extended header/);
});

test("a tar that ends early, or goes on after its end, is refused", () => {
  refuses(entry({ sizeBytes: 2000 }, "x"), "corrupt", /middle of an entry/);
  refuses(entry({}, "x").subarray(0, 300), "corrupt", /middle of an entry/);
  refuses(pax([["path", "a"]]), "corrupt", /after an extended header/);
  refuses(Buffer.concat([tar(entry({}, "x")), Buffer.alloc(512), Buffer.from("z")]), "corrupt", /follows the end mark/);
  refuses(Buffer.concat([Buffer.alloc(512), entry({}, "x")]), "corrupt", /follows the end mark/);
});

test("only files have data, whatever size other entries say", () => {
  const entries = read(tar(headerBlock({ name: "d", type: "5", sizeBytes: 4096 }), entry({ name: "f" }, "x")));
  assert.deepEqual(
    entries.map(({ path }) => path),
    ["d", "f"],
  );
});
