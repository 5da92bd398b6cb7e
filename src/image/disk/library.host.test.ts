import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { listMounts, unmount } from "../../host/mount.ts";
import { stream } from "../../host/process.ts";
import { confinedFile, startConfined } from "./confined.ts";
import type { DiskImage, DiskImport, ImageChecksum } from "./contract.ts";
import { checksumOf, iso, qcow2, rawDisk } from "./image-fixture.ts";
import { DiskLibrary } from "./library.ts";

/** Images as real programs make them, signatures of real keys, and disks that are really full. */

const call = backgroundCall();
const mebibyte = 2 ** 20;
let directory: string;
let library: DiskLibrary;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "library."));
  library = await open(join(directory, "lib"));
});

after(async () => {
  for (const { target } of listMounts(directory).toReversed()) await unmount(target, { detach: true });
  rmSync(directory, { recursive: true });
});

function open(libDir: string): Promise<DiskLibrary> {
  return DiskLibrary.open({ libDir, holdersOf: async () => [] });
}

function qemuImg(...argv: string[]): void {
  execFileSync("qemu-img", argv, { cwd: directory, stdio: ["ignore", "ignore", "pipe"] });
}

function importOf(name: string, more: Partial<DiskImport> = {}): Promise<DiskImage> {
  const source = { kind: "file", path: join(directory, name) } as const;
  return library.import({ source, allowUnverified: true, replace: true, ...more }, call);
}

function refused(working: Promise<unknown>, reason: Fault["reason"], message: RegExp): Promise<void> {
  return assert.rejects(working, (error) => {
    assert.ok(isFault(error, reason), String(error));
    assert.match(error.message, message);
    return true;
  });
}

test("what qemu-img makes is taken, in all its variants", async () => {
  writeFileSync(join(directory, "content.raw"), rawDisk(2 * mebibyte));
  const variants = [
    "compat=0.10",
    "compat=1.1",
    "cluster_size=512",
    "cluster_size=2M",
    "extended_l2=on",
    "compression_type=zstd",
  ];
  for (const variant of variants) {
    qemuImg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", variant, "content.raw", "variant.qcow2");
    const image = await importOf("variant.qcow2");
    assert.deepEqual([image.format, image.virtualSizeBytes], ["qcow2", 2 * mebibyte], variant);
  }
  qemuImg("snapshot", "-c", "first", "variant.qcow2");
  assert.equal((await importOf("variant.qcow2")).virtualSizeBytes, 2 * mebibyte);
});

test("what qemu-img makes that is not one file of its own, or not ours, is refused", async () => {
  writeFileSync(join(directory, "secret"), rawDisk());
  qemuImg("create", "-f", "qcow2", "-b", join(directory, "secret"), "-F", "raw", "backed.qcow2");
  await refused(importOf("backed.qcow2"), "hostile", /reads from another file, ".*\/secret"/);
  qemuImg("create", "-f", "qcow2", "-u", "-b", 'json:{"driver":"nbd"}', "-F", "raw", "backed.qcow2", "1G");
  await refused(importOf("backed.qcow2"), "hostile", /json:/);
  qemuImg("create", "-f", "qcow2", "-o", `data_file=${join(directory, "data")}`, "outside.qcow2", "1G");
  await refused(importOf("outside.qcow2"), "hostile", /content is in another file ".*\/data"/);
  const secret = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s"];
  qemuImg("create", "-f", "qcow2", ...secret, "locked.qcow2", "1M");
  await refused(importOf("locked.qcow2"), "unsupported", /encrypted/);
  for (const [format, name] of [
    ["vmdk", "VMDK"],
    ["vpc", "VHD"],
    ["vhdx", "VHDX"],
    ["vdi", "VDI"],
    ["qed", "QED"],
  ] as const) {
    qemuImg("create", "-f", format, "foreign", "16M");
    await refused(importOf("foreign"), "unsupported", new RegExp(`format ${name}`));
  }
});

test("a real ISO is one, and a part of it is none", async () => {
  mkdirSync(join(directory, "tree"));
  writeFileSync(join(directory, "tree/file"), Buffer.alloc(mebibyte, 1));
  execFileSync("xorriso", [
    "-as",
    "mkisofs",
    "-quiet",
    "-r",
    "-J",
    "-o",
    join(directory, "real.iso"),
    join(directory, "tree"),
  ]);
  const image = await importOf("real.iso");
  assert.deepEqual([image.kind, image.format], ["iso", "raw"]);
  assert.ok(image.virtualSizeBytes > mebibyte);
  writeFileSync(join(directory, "cut.iso"), readFileSync(join(directory, "real.iso")).subarray(0, 700_000));
  await refused(importOf("cut.iso"), "corrupt", /cut off/);
});

test("a qcow2 that was changed at random is taken or refused, in time, and never more than that", async () => {
  writeFileSync(join(directory, "content.raw"), Buffer.concat([rawDisk(mebibyte), Buffer.alloc(mebibyte, 7)]));
  qemuImg("convert", "-c", "-f", "raw", "-O", "qcow2", "content.raw", "seed.qcow2");
  qemuImg("snapshot", "-c", "first", "seed.qcow2");
  const seed = readFileSync(join(directory, "seed.qcow2"));
  let state = 42;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const reasons = new Map<string, number>();
  for (let round = 0; round < 60; round += 1) {
    const mutant = Buffer.from(seed);
    // Headers and tables: what sits at the beginning of each cluster.
    for (let change = 0; change <= random(6); change += 1) {
      const cluster = random(Math.floor(mutant.length / 65_536)) * 65_536;
      mutant[Math.min(cluster + random(120), mutant.length - 1)] = random(256);
    }
    writeFileSync(
      join(directory, "mutant.qcow2"),
      mutant.subarray(0, random(4) === 0 ? random(mutant.length) : mutant.length),
    );
    const startedMs = performance.now();
    const outcome = await importOf("mutant.qcow2").then(
      () => "taken",
      (error: unknown) => {
        assert.ok(error instanceof Fault, String(error));
        return error.reason;
      },
    );
    assert.ok(["taken", "corrupt", "hostile", "unsupported", "exhausted"].includes(outcome), outcome);
    assert.ok(performance.now() - startedMs < 30_000);
    reasons.set(outcome, (reasons.get(outcome) ?? 0) + 1);
  }
  assert.ok((reasons.get("taken") ?? 0) > 0 && (reasons.get("corrupt") ?? 0) > 0, JSON.stringify([...reasons]));
});

test("what looks into images is nobody, without network, and able to write nothing", async () => {
  const file = join(directory, "looked-at");
  writeFileSync(file, "content", { mode: 0o444 });
  const look = async (script: string): Promise<string> => {
    const shell = await startConfined(["sh", "-c", script], file, { memoryBytes: 2 ** 30, seconds: 10 }, call);
    const output = await shell.stdout.setEncoding("utf8").reduce((text: string, chunk: string) => text + chunk, "");
    await shell.ended;
    return output.trim();
  };
  assert.equal(await look("id -u; id -g; id -G"), "65534\n65534\n65534");
  assert.match(
    await look("grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/self/status"),
    /^CapPrm:\t0+\nCapEff:\t0+\nCapBnd:\t0+\nNoNewPrivs:\t1$/,
  );
  assert.doesNotMatch(await look("cat /proc/net/dev"), /eth0/);
  assert.equal(await look(`cat ${confinedFile}`), "content");
  assert.equal(await look(`echo x >>${confinedFile} && echo written`), "");
  assert.equal(await look("echo x 2>/dev/null >/tmp/written-by-nobody && echo written"), "");
  rmSync("/tmp/written-by-nobody", { force: true });
});

test("a program that is not there is named, with its package", async () => {
  const started = startConfined(["qemu-img-of-another-world"], directory, { memoryBytes: 2 ** 30, seconds: 1 }, call);
  await refused(started, "unsupported", /qemu-img-of-another-world is not installed/);
});

test("a signed list of checksums vouches as much as its signature: good, of another, of nobody, changed, expired", async () => {
  const gpg = (...argv: string[]): Buffer =>
    execFileSync(
      "gpg",
      ["--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", ...argv],
      {
        stdio: ["ignore", "pipe", "ignore"],
      },
    );
  const home = mkdtempSync(join(tmpdir(), "gpg."));
  try {
    gpg("--quick-generate-key", "publisher@example.org", "ed25519", "sign", "never");
    gpg("--quick-generate-key", "stranger@example.org", "ed25519", "sign", "never");
    writeFileSync(join(directory, "signed.iso"), iso());
    const list = Buffer.from(`${checksumOf(iso()).slice("sha256:".length)}  signed.iso\n`);
    writeFileSync(join(directory, "SHA256SUMS"), list);
    const sign = (who: string, ...more: string[]): Buffer =>
      gpg("--local-user", who, ...more, "--detach-sign", "--output", "-", join(directory, "SHA256SUMS"));
    const [binary, armored] = [join(directory, "keys.gpg"), join(directory, "keys.asc")];
    writeFileSync(binary, gpg("--export", "publisher@example.org"));
    writeFileSync(armored, gpg("--armor", "--export", "publisher@example.org"));
    const checksum = (signature: Buffer, keyringPath = binary, bytes = list): ImageChecksum => ({
      kind: "list",
      list: { kind: "bytes", bytes },
      signature: { detached: { kind: "bytes", bytes: signature }, keyringPath },
    });
    const good = sign("publisher@example.org");
    for (const keyring of [binary, armored]) {
      const image = await importOf("signed.iso", { checksum: checksum(good, keyring), allowUnverified: false });
      assert.equal(image.verified, "signature");
      await library.remove("signed.iso", call);
    }
    assert.equal(
      (await importOf("signed.iso", { checksum: checksum(sign("publisher@example.org", "--armor")) })).verified,
      "signature",
    );
    await library.remove("signed.iso", call);
    const changed = Buffer.from(`${list.toString()}\n`);
    const cases: readonly (readonly [ImageChecksum, RegExp])[] = [
      [checksum(sign("stranger@example.org")), /its key [0-9A-F]+ is not in the keyring/],
      [checksum(good, binary, changed), /it was not made for this list/],
      [checksum(Buffer.from("no signature")), /verify the signature/],
      [checksum(Buffer.alloc(0)), /verify the signature/],
    ];
    for (const [wrong, message] of cases)
      await refused(importOf("signed.iso", { checksum: wrong }), "corrupt", message);
    await refused(
      importOf("signed.iso", { checksum: checksum(good, join(directory, "none.gpg")) }),
      "not-found",
      /none.gpg/,
    );
    writeFileSync(join(directory, "nonsense.gpg"), "not a key");
    await refused(
      importOf("signed.iso", { checksum: checksum(good, join(directory, "nonsense.gpg")) }),
      "corrupt",
      /verify the signature/,
    );
    const clear = gpg(
      "--local-user",
      "publisher@example.org",
      "--clear-sign",
      "--output",
      "-",
      join(directory, "SHA256SUMS"),
    );
    const inline = (bytes: Buffer): ImageChecksum => {
      return { kind: "list", list: { kind: "bytes", bytes }, signature: { keyringPath: binary } };
    };
    const image = await importOf("signed.iso", { checksum: inline(clear), allowUnverified: false });
    assert.equal(image.verified, "signature");
    await library.remove("signed.iso", call);
    // A line that was put before or behind what was signed says nothing, and one within it spoils it.
    const other = `${"0".repeat(64)}  signed.iso\n`;
    writeFileSync(join(directory, "OTHERSUMS"), other);
    const strangers = gpg(
      "--local-user",
      "stranger@example.org",
      "--clear-sign",
      "--output",
      "-",
      join(directory, "OTHERSUMS"),
    );
    for (const behind of [other, strangers.toString()]) {
      await importOf("signed.iso", { checksum: inline(Buffer.from(`${clear.toString()}${behind}`)) });
      await library.remove("signed.iso", call);
    }
    await importOf("signed.iso", { checksum: inline(Buffer.from(`${other}${clear.toString()}`)) });
    await library.remove("signed.iso", call);
    const within = clear.toString().replace(list.toString(), `${list.toString()}${other}`);
    assert.notEqual(within, clear.toString());
    await refused(
      importOf("signed.iso", { checksum: inline(Buffer.from(within)) }),
      "corrupt",
      /not made for this list/,
    );
    const both = Buffer.concat([strangers, clear]);
    await refused(importOf("signed.iso", { checksum: inline(both) }), "corrupt", /is not in the keyring/);
    await refused(importOf("signed.iso", { checksum: inline(list) }), "corrupt", /verify the signature/);
    gpg("--faked-system-time", "20200101T000000", "--quick-generate-key", "old@example.org", "ed25519", "sign", "1y");
    const old = sign("old@example.org", "--faked-system-time", "20200601T000000");
    writeFileSync(binary, gpg("--export", "old@example.org"));
    await refused(importOf("signed.iso", { checksum: checksum(old) }), "corrupt", /expired/);
    assert.equal(await library.find("signed.iso", call), undefined);
  } finally {
    execFileSync("gpgconf", ["--homedir", home, "--kill", "all"]);
    rmSync(home, { recursive: true });
  }
});

test("on a full disk an import is refused as exhausted, before or while it comes, and nothing stays", async () => {
  const full = join(directory, "full");
  mkdirSync(full);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", full]);
  const small = await open(full);
  const bytes = Buffer.alloc(8 * mebibyte, 1);
  rawDisk(512).copy(bytes);
  writeFileSync(join(directory, "big.raw"), bytes);
  const importing = (source: DiskImport["source"]): Promise<DiskImage> =>
    small.import({ source, name: "big", allowUnverified: true, replace: false }, call);
  await refused(importing({ kind: "file", path: join(directory, "big.raw") }), "exhausted", /needs 8 MiB of disk/);
  const sent = { kind: "bytes", filename: "big.raw", bytes: chunksOf(bytes) } as const;
  await refused(importing(sent), "exhausted", /no space left/);
  execFileSync("sh", ["-c", `gzip -c ${join(directory, "big.raw")} > ${join(directory, "big.raw.gz")}`]);
  await refused(importing({ kind: "file", path: join(directory, "big.raw.gz") }), "exhausted", /no space left/);
  const left = readdirSync(full, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  assert.deepEqual(left, []);
  const filler = openSync(join(full, "filler"), "w");
  assert.throws(() => {
    for (;;) writeSync(filler, Buffer.alloc(4096));
  }, /ENOSPC/);
  closeSync(filler);
  writeFileSync(join(directory, "tiny.qcow2"), qcow2());
  await refused(importing({ kind: "file", path: join(directory, "tiny.qcow2") }), "exhausted", /./);
  rmSync(join(full, "filler"));
  assert.equal((await importing({ kind: "file", path: join(directory, "tiny.qcow2") })).format, "qcow2");
});

async function* chunksOf(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
}

test("killed at any moment, every name leads to a whole image, and nothing else is left", async () => {
  const libDir = join(directory, "churned");
  for (let round = 0; round < 12; round += 1) {
    const program = [
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      join(import.meta.dirname, "churn-fixture.ts"),
    ];
    const child = stream([...program, libDir], {}, call);
    for await (const chunk of child.stdout) if (String(chunk).includes("churning")) break;
    await call.clock.sleep(Math.random() * 400);
    child.kill("SIGKILL");
    assert.deepEqual(await child.exited, { code: null, signal: "SIGKILL" }, "it was still churning");
    const next = await open(libDir);
    for (const { names } of await next.list(call)) for (const name of names) await next.verify(name, call);
    for (const { names } of await next.list(call)) for (const name of names) await next.remove(name, call);
    await next.collect([], call);
    assert.deepEqual(await next.list(call), []);
    const left = readdirSync(libDir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    assert.deepEqual(
      left.filter(({ parentPath }) => !parentPath.endsWith("/name")),
      [],
    );
  }
});
