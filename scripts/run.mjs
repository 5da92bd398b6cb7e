// The one entry of `npm start`, `npm test` and the others. Written for any Node from 18 on: it prepares what the task
// needs (npm packages, Node 26, Debian packages, the compiled command line) and hands over to Node 26.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { compileCli } from "./setup/cli.mjs";
import { benchPackages, installPackages, runtimePackages, testPackages } from "./setup/debian.mjs";
import { fetchGuestKernel } from "./setup/guest-kernel.mjs";
import { prepareNode, root } from "./setup/node.mjs";
import { requireRoot } from "./setup/root.mjs";

const tasks = {
  start: { entry: "scripts/start.mjs", asRoot: true, packages: runtimePackages, compiled: true },
  test: { entry: "scripts/test.mjs", asRoot: true, packages: { ...runtimePackages, ...testPackages }, compiled: true },
  bench: {
    entry: "bench/main.ts",
    asRoot: true,
    packages: { ...runtimePackages, ...testPackages, ...benchPackages },
    compiled: true,
  },
  check: { entry: "scripts/check.mjs", packages: { openssl: "openssl" } },
  generate: { entry: "scripts/generate.mjs" },
};

const [name = "", ...args] = process.argv.slice(2);
const task = tasks[name];
if (task === undefined) {
  console.error(`unknown task "${name}"; there is: ${Object.keys(tasks).join(", ")}`);
  process.exit(64);
}

try {
  if (task.asRoot) requireRoot(name === "start" || name === "test" ? `npm ${name}` : `npm run ${name}`);
  const node = prepareNode();
  if (task.packages !== undefined) installPackages(task.packages);
  if (task.asRoot) fetchGuestKernel();
  if (task.compiled) compileCli();
  const flags = ["--disable-warning=ExperimentalWarning", join(root, task.entry)];
  const { status } = spawnSync(node, [...flags, ...args], { stdio: "inherit" });
  process.exitCode = status ?? 1;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
