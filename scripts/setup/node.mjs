// npm packages and Node 26. Runs under any Node from 18 on, before anything is installed.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const wantedMajor = 26;

/** Installs what package-lock.json says, when that is not what is there. Returns the path of a Node that can run Croft. */
export function prepareNode() {
  const stamp = join(root, "node_modules", ".croft-lock");
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== lock) {
    say("installing npm packages (about 30 s, once)");
    const { status } = spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], {
      cwd: root,
      stdio: "inherit",
    });
    if (status !== 0) throw new Error("npm ci failed: see above. With the network back, run the same command again.");
    writeFileSync(stamp, lock);
  }
  return nodePath();
}

function nodePath() {
  if (Number(process.versions.node.split(".")[0]) >= wantedMajor) return process.execPath;
  const bundled = join(root, "node_modules", ".bin", "node");
  if (existsSync(bundled)) return bundled;
  throw new Error(
    `Node ${wantedMajor} is needed and none came with the packages for ${process.arch}: install it, then run the same command again.`,
  );
}

export function say(text) {
  console.log(`\x1b[2m·\x1b[0m ${text}`);
}
