// npm test: everything `npm run check` tests, then what needs the real host and real engines. Runs inside namespaces of
// its own, and shows at the end that it left nothing behind.
//
//     npm test                     all of it
//     npm test -- --only host      one suite: unit, host, e2e, online, guest
//     npm test -- --grep rollback  tests whose file name holds the word
import { spawnSync } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { root } from "./setup/node.mjs";
import { runIsolated } from "./test/namespace.mjs";
import { difference, takeTrace } from "./test/trace.mjs";

const { values } = parseArgs({ options: { only: { type: "string" }, grep: { type: "string", default: "" } } });
const all = globSync("{src,test}/**/*.test.ts", { cwd: root })
  .filter((file) => file.includes(values.grep))
  .sort();
const suites = {
  unit: all.filter((file) => !/\.(host|e2e|online|guest)\.test\.ts$/.test(file)),
  host: all.filter((file) => file.endsWith(".host.test.ts")),
  e2e: all.filter((file) => file.endsWith(".e2e.test.ts")),
  // Those that build images of Debian's packages, and so have a way out to where packages come from.
  online: all.filter((file) => file.endsWith(".online.test.ts")),
  // Those that boot guests, which takes most of the time where there is no KVM.
  guest: all.filter((file) => file.endsWith(".guest.test.ts")),
};
if (values.only !== undefined && suites[values.only] === undefined) {
  console.error(`there is no suite "${values.only}"; there is: ${Object.keys(suites).join(", ")}`);
  process.exit(64);
}

// So that what was to be done at the end is done.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

const scratch = mkdtempSync(join(tmpdir(), "croft-test-"));
const before = takeTrace(root);
let failed = false;
const unsteady = [];
const totals = { passed: 0, failed: 0 };
for (const [name, files] of Object.entries(suites)) {
  if (files.length === 0 || (values.only !== undefined && values.only !== name)) continue;
  console.log(`\n── ${name}: ${files.length} files`);
  const counts = await runFiles(name, files);
  const failing = Object.keys(counts).filter((file) => counts[file].failed > 0);
  if (failing.length > 0) {
    // Where others use the processors too, a guest that boots without acceleration may take longer than any deadline. A
    // file that fails is run once more, with nothing else beside it, and what passes only then is named at the end.
    console.log(`\n── ${name}, once more: ${failing.length} of ${files.length} files`);
    const again = await runFiles(name, failing);
    for (const file of failing) {
      const isWell = again[file] !== undefined && again[file].failed === 0;
      if (isWell) unsteady.push(`${relative(root, file)} (${counts[file].failed} failed at first)`);
      counts[file] = again[file] ?? counts[file];
    }
  }
  for (const { passed, failed } of Object.values(counts)) {
    totals.passed += passed;
    totals.failed += failed;
  }
}

const left = [...difference(before, takeTrace(root)), ...cleanScratch()];
if (left.length === 0)
  console.log(
    "\nleft behind: nothing (looked at mounts, network namespaces, links, nft tables, cgroups, loop devices, processes, files)",
  );
else {
  failed = true;
  console.log(`\nLEFT BEHIND:\n${left.map((line) => `  ${line}`).join("\n")}`);
}
if (unsteady.length > 0)
  console.log(`\npassed only when run again:\n${unsteady.map((line) => `  ${line}`).join("\n")}`);
console.log(`\n${totals.passed} passed, ${totals.failed} failed`);
process.exitCode = failed || totals.failed > 0 || totals.passed === 0 ? 1 : 0;

/** Runs them, one suite's way, and returns how many tests of each file passed and failed. */
async function runFiles(name, files) {
  const tally = join(scratch, `${name}.json`);
  rmSync(tally, { force: true });
  // Tests of the host take the whole machine (cgroups, links, ports): one after the other.
  const concurrency = name === "unit" ? 2 : 1;
  const node = [
    process.execPath,
    "--disable-warning=ExperimentalWarning",
    "--test",
    `--test-concurrency=${concurrency}`,
    // Of a file. What hangs must not take all the time there is.
    "--test-timeout=1500000",
    "--test-reporter=spec",
    "--test-reporter-destination=stdout",
    `--test-reporter=${join(root, "scripts/test/tally.mjs")}`,
    `--test-reporter-destination=${tally}`,
    ...files,
  ];
  const env = { ...process.env, CROFT_TEST_DIR: scratch, CROFT_TEST_WHOLE: "1" };
  const status =
    name === "unit"
      ? spawnSync(node[0], node.slice(1), { cwd: root, stdio: "inherit", env }).status
      : await runIsolated(node, { cwd: root, env, online: name === "online" || name === "guest", scratch });
  const counts = readTally(tally);
  const isCounted = Object.values(counts).some((file) => file.failed > 0);
  // The runner failed, and no test of it did: it was killed, say.
  if (status !== 0 && !isCounted) failed = true;
  return counts;
}

function readTally(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    failed = true;
    return {};
  }
}

/**
 * Tests keep their homes beneath the scratch directory and empty it themselves; what is in it now was forgotten, but for
 * the guests that several of them share.
 */
function cleanScratch() {
  const forgotten = globSync("*", { cwd: scratch }).filter((name) => !name.endsWith(".json") && name !== "cache");
  rmSync(scratch, { recursive: true, force: true });
  return forgotten.map((name) => `file ${join(scratch, name)}`);
}
