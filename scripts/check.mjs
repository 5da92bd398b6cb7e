// npm run check: format, lint, types, layers, generated files, unit and contract tests. Under two minutes; nothing here
// needs root or leaves a trace.
import { execFile } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { checkDocs } from "./check/docs.mjs";
import { checkHouse } from "./check/house.mjs";
import { checkLayers } from "./check/layer.mjs";
import { root } from "./setup/node.mjs";

const node = process.execPath;
const bin = (name) => join(root, "node_modules", ".bin", name);
const env = { ...process.env, PATH: `${join(root, "node_modules", ".bin")}:${process.env.PATH}` };
const sources = globSync("src/**/*.{ts,tsx}", { cwd: root }).map((file) => join(root, file));

const testFlags = [
  "--disable-warning=ExperimentalWarning",
  "--test",
  "--test-concurrency=2",
  "--test-timeout=180000",
  "--test-reporter=dot",
];
const unitTests = globSync("src/**/*.test.ts", { cwd: root }).filter((file) => !/\.(host|guest)\.test\.ts$/.test(file));

/** What is looked at, and what is run: the two go on beside each other, as neither keeps all processors busy. */
const lanes = [
  [
    ["format", () => program(bin("oxfmt"), "--check", ".")],
    ["lint", () => program(bin("oxlint"), "--type-aware", "--quiet")],
    ["types", () => program(bin("tsc"), "-p", ".")],
    ["unused", () => program(bin("knip"), "--no-progress")],
    ["layers", () => findings(checkLayers(root, sources))],
    ["house", () => findings(checkHouse(root, sources))],
    ["docs", () => findings(checkDocs(root))],
    ["generated", () => program(node, "scripts/generate.mjs", "--check")],
  ],
  [["tests", () => program(node, ...testFlags, ...unitTests)]],
];
let failed = 0;
await Promise.all(
  lanes.map(async (steps) => {
    for (const [name, step] of steps) {
      const startedMs = performance.now();
      const { ok, output } = await step();
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
      console.log(`${ok ? "ok    " : "FAILED"} ${name.padEnd(10)} ${seconds.padStart(5)} s`);
      if (ok) continue;
      failed += 1;
      console.log(output.trimEnd());
    }
  }),
);
process.exitCode = failed === 0 ? 0 : 1;

async function program(command, ...args) {
  try {
    await promisify(execFile)(command, args, { cwd: root, env, encoding: "utf8", maxBuffer: 64 * 2 ** 20 });
    return { ok: true, output: "" };
  } catch (error) {
    const said = `${error.stdout ?? ""}${error.stderr ?? ""}`;
    return { ok: false, output: said === "" ? error.message : said };
  }
}

function findings(list) {
  return { ok: list.length === 0, output: list.join("\n") };
}
