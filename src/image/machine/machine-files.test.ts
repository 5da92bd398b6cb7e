import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pack } from "tar-stream";
import { backgroundCall } from "../../base/call.ts";
import { homeBeneath } from "../../base/home.ts";
import { TarMachineFiles } from "./machine-files.ts";

const call = backgroundCall();
const root = mkdtempSync(join(tmpdir(), "croft-machine-"));
after(() => rmSync(root, { recursive: true }));
const home = homeBeneath(root);
const scratch = join(home.libDir, "machine-export");

/** As long as a name may be. */
const longName = `data-${"x".repeat(35)}`;
const disks = { root: Buffer.alloc(100_000, "r"), [longName]: Buffer.from("data") };

async function fill(directory: string) {
  return Object.entries(disks).map(([name, content]) => {
    const path = join(directory, `${name}.qcow2`);
    writeFileSync(path, content);
    return { name, path };
  });
}

async function packed(): Promise<Buffer> {
  const files = await TarMachineFiles.open(home);
  return Buffer.concat(await Array.fromAsync(files.pack({ cpus: 2 }, fill, call)));
}

async function unpack(file: Buffer): Promise<{ description: unknown; taken: Record<string, string> }> {
  const taken: Record<string, string> = {};
  const files = await TarMachineFiles.open(home);
  const description = await files.unpack(
    pieces(file),
    async ({ name, bytes }) => {
      taken[name] = Buffer.concat(await Array.fromAsync(bytes)).toString("latin1");
    },
    call,
  );
  return { description, taken };
}

async function* pieces(file: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < file.length; at += 777) yield file.subarray(at, at + 777);
}

test("what was packed is what is unpacked, and nothing is left beneath the home", async () => {
  const { description, taken } = await unpack(await packed());
  assert.deepEqual(description, { cpus: 2 });
  assert.deepEqual(taken, { root: disks.root?.toString("latin1"), [longName]: "data" });
  assert.deepEqual(existsSync(scratch) ? readdirSync(scratch) : [], []);
});

test("a disk that is known already need not be read", async () => {
  const files = await TarMachineFiles.open(home);
  const seen: string[] = [];
  const skip = async ({ name, bytes }: { readonly name: string; readonly bytes: AsyncIterable<Uint8Array> }) => {
    seen.push(name);
    if (name !== "root") for await (const _ of bytes);
  };
  assert.deepEqual(await files.unpack(pieces(await packed()), skip, call), { cpus: 2 });
  assert.deepEqual(seen, ["root", longName]);
});

test("whoever stops reading leaves nothing behind", async () => {
  const files = await TarMachineFiles.open(home);
  for await (const _ of files.pack({}, fill, call)) break;
  assert.deepEqual(readdirSync(scratch), []);
});

test("a failure to write the disks is told, and leaves nothing behind", async () => {
  const files = await TarMachineFiles.open(home);
  const failing = files.pack({}, async () => Promise.reject(new Error("no disk")), call);
  await assert.rejects(Array.fromAsync(failing), /no disk/);
  assert.deepEqual(readdirSync(scratch), []);
});

test("what is no machine's file, or only a part of one, is refused", async () => {
  const whole = await packed();
  const other = pack();
  other.entry({ name: "etc/passwd" }, "x");
  other.finalize();
  const lying = pack();
  lying.entry({ name: "machine.json" }, JSON.stringify({ croftMachine: 1, disks: [{ name: "../x", sizeBytes: 1 }] }));
  lying.finalize();
  const broken = [
    Buffer.alloc(0),
    Buffer.from("not a tar at all"),
    whole.subarray(0, 3000),
    whole.subarray(0, 60_000),
    Buffer.concat(await Array.fromAsync(other as AsyncIterable<Uint8Array>)),
    Buffer.concat(await Array.fromAsync(lying as AsyncIterable<Uint8Array>)),
  ];
  for (const file of broken) await assert.rejects(unpack(file), { reason: "corrupt" });
});
