// npm test: everything `npm run check` tests, then what needs the real host and real engines. Runs inside namespaces of
// its own, and shows at the end that it left nothing behind.
//
//     npm test                     all of it
//     npm test -- --only host      one suite: unit, host, e2e
//     npm test -- --grep rollback  tests whose file name holds the word
import { spawn, spawnSync } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root } from "./setup/node.mjs";
import { writeAptConfiguration } from "./test/mirror.mjs";
import { difference, takeTrace } from "./test/trace.mjs";

const { values } = parseArgs({ options: { only: { type: "string" }, grep: { type: "string", default: "" } } });
const all = globSync("{src,test}/**/*.test.ts", { cwd: root })
  .filter((file) => file.includes(values.grep))
  .sort();
const suites = {
  unit: all.filter((file) => !/\.(host|e2e)\.test\.ts$/.test(file)),
  host: all.filter((file) => file.endsWith(".host.test.ts")),
  e2e: all.filter((file) => file.endsWith(".e2e.test.ts")),
};
if (values.only !== undefined && suites[values.only] === undefined) {
  console.error(`there is no suite "${values.only}"; there is: ${Object.keys(suites).join(", ")}`);
  process.exit(64);
}

/**
 * The first process of the namespace stays a shell, which buries whatever loses its parent. Images of Debian packages are
 * built in it, so apt's way to its mirror is let in, and nothing else is.
 */
const init =
  'ip link set lo up && mount -t overlay apt -o "lowerdir=$1:/etc/apt/apt.conf.d" /etc/apt/apt.conf.d && ' +
  '{ "$2" "$3" inside "$4" & } && shift 4 && "$@"; exit $?';

/** A network, mount and pid namespace of our own: whatever happens inside ends with it. */
const namespaces = ["-n", "-m", "-p", "-f", "--mount-proc", "--kill-child", "--propagation", "private"];

const scratch = mkdtempSync(join(tmpdir(), "croft-test-"));
const before = takeTrace(root);
const mirror = join(root, "scripts/test/mirror.mjs");
const mirrorSocket = join(scratch, "mirror.sock");
const mirrorOutside = spawn(process.execPath, [mirror, "outside", mirrorSocket], { stdio: "inherit" });
const inside = [writeAptConfiguration(join(scratch, "apt")), process.execPath, mirror, mirrorSocket];
let failed = false;
const totals = { passed: 0, failed: 0 };
for (const [name, files] of Object.entries(suites)) {
  if (files.length === 0 || (values.only !== undefined && values.only !== name)) continue;
  console.log(`\n── ${name}: ${files.length} files`);
  const tally = join(scratch, `${name}.json`);
  // Tests of the host take the whole machine (cgroups, links, ports): one after the other.
  const concurrency = name === "unit" ? 2 : 1;
  const node = [
    process.execPath,
    "--disable-warning=ExperimentalWarning",
    "--test",
    `--test-concurrency=${concurrency}`,
    "--test-timeout=1200000",
    "--test-reporter=spec",
    "--test-reporter-destination=stdout",
    `--test-reporter=${join(root, "scripts/test/tally.mjs")}`,
    `--test-reporter-destination=${tally}`,
    ...files,
  ];
  const argv = name === "unit" ? node : ["unshare", ...namespaces, "sh", "-c", init, "sh", ...inside, ...node];
  const { status } = spawnSync(argv[0], argv.slice(1), {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, CROFT_TEST_DIR: scratch },
  });
  if (status !== 0) failed = true;
  const counts = readTally(tally);
  totals.passed += counts.passed;
  totals.failed += counts.failed;
}

mirrorOutside.kill();
const left = [...difference(before, takeTrace(root)), ...cleanScratch()];
if (left.length === 0)
  console.log(
    "\nleft behind: nothing (looked at mounts, network namespaces, links, nft tables, cgroups, loop devices, processes, files)",
  );
else {
  failed = true;
  console.log(`\nLEFT BEHIND:\n${left.map((line) => `  ${line}`).join("\n")}`);
}
console.log(`\n${totals.passed} passed, ${totals.failed} failed`);
process.exitCode = failed || totals.failed > 0 || totals.passed === 0 ? 1 : 0;

function readTally(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return { passed: 0, failed: 1 };
  }
}

/**
 * Tests keep their homes beneath the scratch directory and empty it themselves; what is in it now was forgotten, but for
 * the guests that several of them share.
 */
function cleanScratch() {
  const ours = new Set(["cache", "apt", "mirror.sock"]);
  const forgotten = globSync("*", { cwd: scratch }).filter((name) => !name.endsWith(".json") && !ours.has(name));
  rmSync(scratch, { recursive: true, force: true });
  return forgotten.map((name) => `file ${join(scratch, name)}`);
}
