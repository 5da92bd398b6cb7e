// Imports are permissions. Each line of `layers` sees only the lines below it; the finer rules follow. When this refuses
// you, move the code: do not widen the rule. See docs/architecture.md.
import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const layers = [
  ["bin"],
  ["api", "cli", "oci", "dashboard"],
  ["client", "reconcile"],
  ["stack", "instance", "image", "storage", "network", "secret"],
  ["operation"],
  ["store", "event"],
  ["host"],
  ["gen", "base"],
];
const level = new Map(layers.flatMap((nouns, index) => nouns.map((noun) => [noun, index])));

/** Nouns whose subfolders are drivers, except those that are parts of the noun itself. */
const driverNouns = new Set(["instance", "storage", "network", "store", "event"]);
/** What several drivers of a noun share: a folder of the noun itself, not a driver. */
const sharedParts = new Set(["instance/monitor"]);
/** Only these see the host; `bin` sees everything. */
const hostUsers = new Set(["image", "secret", "host", "oci"]);
/** Drivers of `store` and `event` share one database file, so they may see each other. */
const friends = new Map([["event/sqlite", "store/sqlite"]]);

/** Returns what is wrong, one sentence a finding. `files` are paths of TypeScript files beneath `root`/src. */
export function checkLayers(root, files) {
  const findings = [];
  for (const file of files) {
    const from = placeOf(relative(join(root, "src"), file));
    for (const specifier of importsOf(readFileSync(file, "utf8"))) {
      if (!specifier.startsWith(".")) continue;
      const to = placeOf(relative(join(root, "src"), join(dirname(file), specifier)));
      const why = refusal(from, to);
      if (why !== undefined) findings.push(`${relative(root, file)} imports ${specifier}: ${why}`);
    }
  }
  return findings;
}

function refusal(from, to) {
  if (from.noun === to.noun && from.driver === to.driver) return undefined;
  if (from.noun === "bin") return undefined;
  if (!level.has(to.noun)) return `src/${to.noun} is in no layer`;
  if (!level.has(from.noun)) return `src/${from.noun} is in no layer`;
  if (
    to.driver !== undefined &&
    !from.isTest &&
    friends.get(`${from.noun}/${from.driver}`) !== `${to.noun}/${to.driver}`
  ) {
    return `only bin and tests see the driver ${to.noun}/${to.driver}`;
  }
  if (from.noun === to.noun) return undefined;
  if (from.isTest) return undefined;
  if ((from.noun === "cli" || from.noun === "dashboard") && to.noun !== "client" && to.noun !== "base") {
    return `${from.noun} sees only client and base`;
  }
  if (from.noun === "stack" && to.noun !== "base") return "stack is pure: it sees only base";
  if (to.noun === "host" && from.driver === undefined && !hostUsers.has(from.noun) && !from.isShared) {
    return `only drivers, image, secret, oci and bin see host; ${from.noun} is none`;
  }
  if (level.get(to.noun) < level.get(from.noun)) return `${to.noun} is above ${from.noun}`;
  const contractOnly = level.get(to.noun) === level.get(from.noun) && from.driver !== undefined;
  if (contractOnly && !allowedBeside(from, to)) return `a driver sees its noun's contract, host and base`;
  return undefined;
}

/** Engines are handed what storage and network drivers made, so they see the shapes of it: types in contracts. */
function allowedBeside(from, to) {
  return to.file === "contract.ts" || friends.has(`${from.noun}/${from.driver}`) || to.noun === "store";
}

function placeOf(path) {
  const [noun, ...rest] = path.split("/");
  const file = rest.join("/");
  const isShared = sharedParts.has(`${noun}/${rest[0]}`);
  const driver = driverNouns.has(noun) && rest.length > 1 && !isShared ? rest[0] : undefined;
  return { noun, driver, file, isShared, isTest: /\.test\.ts$|suite\.ts$|fixture\.ts$/.test(path) };
}

function importsOf(text) {
  const found = [];
  const pattern =
    /(?:^|\n)\s*(?:import|export)\s[^;]*?from\s+"([^"]+)"|import\(\s*"([^"]+)"\s*\)|(?:^|\n)import\s+"([^"]+)"/g;
  for (const match of text.matchAll(pattern)) found.push(match[1] ?? match[2] ?? match[3]);
  return found;
}
