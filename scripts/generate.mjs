// Writes everything that is made from the protocol and the language: generated code, the client's route table, OpenAPI,
// and the reference pages. `--check` writes nothing and fails when what is committed differs.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const check = process.argv.includes("--check");
const scratch = mkdtempSync(join(tmpdir(), "croft-generate-"));

/** Path beneath the root → content, of everything generated. */
const outputs = new Map();

try {
  buf("lint");
  buf("generate", "--output", join(scratch, "gen"));
  for (const file of filesBeneath(join(scratch, "gen"))) {
    outputs.set(join("src/gen", relative(join(scratch, "gen"), file)), readFileSync(file, "utf8"));
  }
  // Documents are made by Croft's own code, which imports the generated code: that must be in place first.
  if (!check) publish();
  const descriptors = join(scratch, "descriptors.binpb");
  buf("build", "--as-file-descriptor-set", "--output", descriptors);
  await documents(readFileSync(descriptors));
  const stale = check ? differing() : publish();
  if (check && stale.length > 0) {
    console.error(`Not what the sources say: ${stale.join(", ")}\nRun: npm run generate`);
    process.exitCode = 1;
  } else {
    console.log(
      check
        ? `${outputs.size} generated files are up to date`
        : `Wrote ${stale.length} of ${outputs.size} generated files`,
    );
  }
} finally {
  rmSync(scratch, { recursive: true });
}

async function documents(descriptorSet) {
  const { readModel } = await source("src/api/document/model.ts");
  const model = readModel(descriptorSet);
  // Each row: the file, the module that makes it, and how.
  const rows = [
    ["src/gen/client.ts", "src/api/document/client.ts", ({ clientSource }) => clientSource(model)],
    ["docs/reference/openapi.json", "src/api/document/openapi.ts", ({ openApi }) => json(openApi(model))],
    ["docs/reference/api.md", "src/api/document/reference.ts", ({ apiReference }) => apiReference(model)],
    ["docs/reference/language.md", "src/stack/reference.ts", ({ languageReference }) => languageReference()],
    ["docs/reference/croft.schema.json", "src/stack/schema.ts", ({ stackSchema }) => json(stackSchema())],
    ["docs/reference/cli.md", "src/cli/reference.ts", ({ cliReference }) => cliReference()],
  ];
  for (const [path, module, make] of rows) outputs.set(path, await make(await source(module)));
}

function source(path) {
  return import(new URL(`../${path}`, import.meta.url).href);
}

function buf(...args) {
  const { status, error } = spawnSync(join(root, "node_modules/.bin/buf"), args, {
    cwd: join(root, "proto"),
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, PATH: `${join(root, "node_modules/.bin")}:${process.env.PATH}` },
  });
  if (status !== 0) throw error ?? new Error(`buf ${args[0]} failed`);
}

/** Generated files whose content on disk is not as in `outputs`, and files in src/gen that nothing generates. */
function differing() {
  const changed = [...outputs].filter(([path, content]) => {
    const file = join(root, path);
    return !existsSync(file) || readFileSync(file, "utf8") !== content;
  });
  return [...changed.map(([path]) => path), ...strays()];
}

function strays() {
  const gen = join(root, "src/gen");
  if (!existsSync(gen) || !outputs.has("src/gen/client.ts")) return [];
  return filesBeneath(gen)
    .map((file) => relative(root, file))
    .filter((path) => !outputs.has(path));
}

function publish() {
  const stale = differing();
  for (const path of stale) {
    const content = outputs.get(path);
    const file = join(root, path);
    if (content === undefined) {
      rmSync(file);
      continue;
    }
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
  return stale;
}

function filesBeneath(folder) {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

function json(value) {
  return `${JSON.stringify(value, null, 1)}\n`;
}
