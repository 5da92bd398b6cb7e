// The compiled command lines: files that start in a few milliseconds. Without them `bin/croft` and `bin/croft-oci` run
// the source.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root, say } from "./node.mjs";

const common = ["src/base", "package-lock.json", "scripts/setup/cli.mjs"];
const programs = {
  croft: ["src/bin/croft.ts", "src/cli", "src/client", "src/gen", ...common],
  "croft-oci": ["src/bin/croft-oci.ts", "src/oci", "src/host", "src/instance", ...common],
};

export function compileCli() {
  const bun = ["x64", "aarch64"]
    .map((arch) => join(root, "node_modules", "@oven", `bun-linux-${arch}`, "bin", "bun"))
    .find(existsSync);
  if (bun === undefined) return;
  for (const [name, sources] of Object.entries(programs)) compile(bun, name, sources);
}

function compile(bun, name, sources) {
  const stamp = join(root, "dist", `${name}.stamp`);
  const wanted = digest(sources);
  if (existsSync(stamp) && existsSync(join(root, "dist", name)) && readFileSync(stamp, "utf8") === wanted) return;
  say(`compiling ${name}`);
  mkdirSync(join(root, "dist"), { recursive: true });
  const fresh = join(root, "dist", `${name}.${process.pid}`);
  const args = [
    "build",
    "--compile",
    "--minify",
    "--bytecode",
    "--format=esm",
    // What a command does not need is not even looked at: half of the processor time of one that does little.
    "--splitting",
    // Whatever lies in the directory where somebody stands is no part of the program: neither its settings nor its code.
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    // Most commands are over before a function that was made fast would have been called often enough.
    "--compile-jit-policy=5",
    "--external=node:ffi",
    // Speeds up what ssh2 does without it.
    "--external=cpu-features",
    join(root, "src", "bin", `${name}.ts`),
    "--outfile",
    fresh,
  ];
  const { status, stdout, stderr } = spawnSync(bun, args, { cwd: join(root, "dist"), encoding: "utf8" });
  if (status !== 0) throw new Error(`compiling ${name} failed:\n${stdout}${stderr}`);
  renameSync(fresh, join(root, "dist", name));
  writeFileSync(stamp, wanted);
}

function digest(sources) {
  const hash = createHash("sha256");
  const add = (path) => {
    if (statSync(path).isDirectory()) {
      for (const name of readdirSync(path).sort()) add(join(path, name));
    } else {
      hash.update(path.slice(root.length)).update(readFileSync(path));
    }
  };
  for (const source of sources) add(join(root, source));
  return hash.digest("hex");
}
