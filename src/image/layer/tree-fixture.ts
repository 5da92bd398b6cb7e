import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { createHash } from "node:crypto";
import * as fc from "fast-check";
import { backgroundCall } from "../../base/call.ts";
import { run } from "../../host/process.ts";

/** For tests: trees of every kind of file as plain data, how to make them on disk, and what can be seen of them there. */

export interface TreeFile {
  readonly kind: "file" | "sparse" | "directory" | "symlink" | "fifo" | "character" | "link";
  /** Bytes as `latin1`. */
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly content: Uint8Array;
  /** Of a sparse file: holes of so many bytes before and after the content. */
  readonly holeBytes: number;
  readonly xattrs: Readonly<Record<string, string>>;
  /** Of a directory. */
  readonly children: readonly TreeFile[];
}

const anyName = fc.oneof(
  { weight: 4, arbitrary: fc.stringMatching(/^[a-z][a-z0-9._-]{0,12}$/) },
  { weight: 1, arbitrary: fc.stringMatching(/^[a-z]{90,250}$/) },
  {
    weight: 1,
    arbitrary: fc
      .uint8Array({ minLength: 1, maxLength: 30 })
      .map(
        (bytes) =>
          `b${Buffer.from(bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x5f : byte))).toString("latin1")}`,
      ),
  },
);

/** Around the sizes where the layout changes: nothing, less than a block, whole blocks, blocks with a tail. */
const anyContent = fc
  .tuple(fc.oneof(fc.constantFrom(0, 1, 4032, 4033, 4096, 8192), fc.nat(20_000)), fc.nat(255))
  .map(([length, seed]) => Uint8Array.from({ length }, (_, index) => (index * 31 + seed) & 0xff));

const anyXattrs = fc.dictionary(
  fc.stringMatching(/^(user|trusted)\.[a-z]{1,20}$/),
  fc.stringMatching(/^v[a-z0-9]{0,60}$/),
  { maxKeys: 2 },
);

function anyFile(depth: number): fc.Arbitrary<TreeFile> {
  const kinds: TreeFile["kind"][] = ["file", "file", "sparse", "symlink", "fifo", "character", "link", "link"];
  const flat = { mode: fc.nat(0o7777), uid: fc.constantFrom(0, 1000, 100_000), gid: fc.constantFrom(0, 50, 70_000) };
  const leaf = fc.record({
    ...flat,
    kind: fc.constantFrom(...kinds),
    name: anyName,
    mtimeSec: fc.double({ min: 0, max: 2 ** 32, noNaN: true }),
    content: anyContent,
    holeBytes: fc.constantFrom(4096, 100_000, 5_000_000),
    xattrs: anyXattrs,
    children: fc.constant([] as TreeFile[]),
  });
  if (depth === 0) return leaf;
  const directory = fc
    .tuple(leaf, anyTree(depth - 1))
    .map(([file, children]): TreeFile => ({ ...file, kind: "directory", children }));
  return fc.oneof({ weight: 3, arbitrary: leaf }, { weight: 1, arbitrary: directory });
}

export function anyTree(depth: number): fc.Arbitrary<TreeFile[]> {
  return fc.uniqueArray(anyFile(depth), { maxLength: 8, selector: (file) => file.name });
}

/**
 * Makes `tree` in the directory `at`. A link goes to the first file that was made before it, or becomes a file itself.
 * Each file is made as `stage`, a plain path of the same file system, since arguments of programs cannot be any bytes.
 */
export async function makeTree(tree: readonly TreeFile[], at: string, stage: string): Promise<void> {
  const files: Buffer[] = [];
  for (const file of tree) await makeFile(file, Buffer.from(at), stage, files);
}

async function makeFile(file: TreeFile, parent: Buffer, stage: string, files: Buffer[]): Promise<void> {
  const path = Buffer.concat([parent, Buffer.from("/"), Buffer.from(file.name, "latin1")]);
  const [first] = files;
  if (file.kind === "link" && first !== undefined) {
    linkSync(first, path);
    return;
  }
  await makeContent(file, stage);
  for (const [name, value] of Object.entries(file.xattrs)) {
    // Linux lets only files and directories have attributes of users.
    const allowed = name.startsWith("trusted.") || lstatSync(stage).isFile() || lstatSync(stage).isDirectory();
    if (allowed) await run(["setfattr", "-h", "-n", name, "-v", value, stage], {}, backgroundCall());
  }
  renameSync(stage, path);
  for (const child of file.children) await makeFile(child, path, stage, files);
  lchownSync(path, file.uid, file.gid);
  if (file.kind !== "symlink") chmodSync(path, file.mode);
  if (file.kind === "file") files.push(path);
  lutimesSync(path, 0, file.mtimeSec);
}

async function makeContent(file: TreeFile, stage: string): Promise<void> {
  switch (file.kind) {
    case "directory":
      mkdirSync(stage);
      return;
    case "symlink":
      symlinkSync("../somewhere/".repeat(1 + (file.content.length % 300)), stage);
      return;
    case "fifo":
      await run(["mkfifo", stage], {}, backgroundCall());
      return;
    case "character":
      await run(["mknod", stage, "c", `${file.uid % 300}`, `${file.gid + 3}`], {}, backgroundCall());
      return;
    default:
      writeContent(file, stage);
  }
}

function writeContent(file: TreeFile, path: string): void {
  const fd = openSync(path, "wx");
  const hole = file.kind === "sparse" ? file.holeBytes : 0;
  writeSync(fd, file.content, 0, file.content.length, hole);
  ftruncateSync(fd, 2 * hole + file.content.length);
  closeSync(fd);
}

/** Everything that can be seen of the tree at `root`, by name: what a copy must agree with. */
export function seeTree(root: string): Map<string, string> {
  const seen = new Map<string, string>();
  const firstNames = new Map<bigint, string>();
  const see = (path: Buffer, name: string): void => {
    const facts = lstatSync(path, { bigint: true });
    const parts = [facts.mode.toString(8), facts.uid, facts.gid, facts.nlink, facts.rdev];
    if (name !== ".") parts.push(facts.mtimeNs);
    if (facts.isDirectory()) {
      for (const child of readdirSync(path, { encoding: "buffer" })) {
        see(Buffer.concat([path, Buffer.from("/"), child]), `${name}/${child.toString("latin1")}`);
      }
    } else {
      // Which names share an inode, by the first of them in order.
      const others = firstNames.get(facts.ino);
      firstNames.set(facts.ino, others === undefined || name < others ? name : others);
      parts.push(facts.size, `inode ${facts.ino}`);
    }
    if (facts.isSymbolicLink()) parts.push(readlinkSync(path, { encoding: "latin1" }));
    if (facts.isFile()) parts.push(createHash("sha1").update(readFileSync(path)).digest("hex"));
    seen.set(name, parts.join(" "));
  };
  see(Buffer.from(root), ".");
  for (const [name, text] of seen) {
    seen.set(
      name,
      text.replace(/inode ([0-9]+)/, (_, inode: string) => `same as ${firstNames.get(BigInt(inode))}`),
    );
  }
  return seen;
}

/** The extended attributes of all files below `root`, as sorted text. */
export async function seeXattrs(root: string): Promise<string[]> {
  const { stdout } = await run(
    ["getfattr", "-R", "-h", "-d", "-m", "^(user|trusted)\\.", "-e", "hex", "."],
    { cwd: root },
    backgroundCall(),
  );
  return stdout
    .split("\n\n")
    .map((part) => part.split("\n").sort().join("\n"))
    .sort();
}
