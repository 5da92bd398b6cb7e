import { mkdir, rm, writeFile } from "node:fs/promises";
import { freemem } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import type { Call } from "../../base/call.ts";
import { withDeadline } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { mount } from "../../host/kernel.ts";
import { unmount } from "../../host/mount.ts";
import { run, stream } from "../../host/process.ts";
import { buildEpochSec } from "./epoch.ts";

/** `debian:bookworm` → `bookworm`; undefined for what is not a Debian suite by name. */
export function debianSuite(from: string): string | undefined {
  return /^debian:([a-z]{3,20})$/.exec(from)?.[1];
}

const buildMs = 30 * 60_000;

/** Documentation, manual pages and translations stay out, as in Debian's own slim images; licences stay in. */
const dpkgOptions: readonly string[] = [
  "path-exclude=/usr/share/doc/*",
  "path-include=/usr/share/doc/*/copyright",
  "path-exclude=/usr/share/man/*",
  // Without these directories update-alternatives fails in the scripts of some packages.
  "path-include=/usr/share/man/man[1-9]",
  "path-exclude=/usr/share/locale/*",
  "path-include=/usr/share/locale/locale.alias",
  // What is being made is thrown away after a crash, so nothing needs to be on disk before it is complete.
  "force-unsafe-io",
];

/** What mmdebstrap takes from this machine and leaves in the tree: its name, its resolver, its proxy. */
const forgetHost = 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/etc/apt/apt.conf.d/99mmdebstrap"';

/** With at least so much memory to spare, a tree is made in half of it. */
const comfortableBytes = 3 * 2 ** 30;

/**
 * Writes the tar of a minimal Debian with `packages` and all they need, installed by apt and dpkg with their scripts, by
 * mmdebstrap. Services are not started meanwhile.
 *
 * Everything runs in mount and pid namespaces that end with this process, whatever ends it: no program of the build can
 * outlive the daemon. The tree is made in memory where there is enough of it, as writing and deleting its ten thousand
 * files on a busy disk takes longer than everything else; the mount for that is taken away with the others beneath the
 * store's temporary directory if the daemon is killed.
 *
 * @param workDir an empty directory, which the caller removes
 */
export async function writeDebianTar(
  suite: string,
  packages: readonly string[],
  workDir: string,
  tarPath: string,
  call: Call,
): Promise<void> {
  const topic = `build debian:${suite}${packages.length === 0 ? "" : ` with ${packages.join(" ")}`}`;
  call.report({ topic, state: "starting" });
  const aptOptions = join(workDir, "apt.conf");
  await writeFile(aptOptions, await hostAptOptions(call));
  const sources = await hostSources(suite, call);
  const treeDir = join(workDir, "tree");
  await mkdir(treeDir, { mode: 0o755 });
  const contained =
    "setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc --propagation private".split(" ");
  const settings = [`--aptopt=${aptOptions}`, `--customize-hook=${forgetHost}`].concat(
    dpkgOptions.map((option) => `--dpkgopt=${option}`),
    packages.length === 0 ? [] : [`--include=${packages.join(",")}`],
  );
  const program = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar", "--skip=output/dev"];
  const argv = [...contained, ...program, ...settings, suite, tarPath, ...sources];
  const env = { TMPDIR: treeDir, SOURCE_DATE_EPOCH: String(buildEpochSec), DEBIAN_FRONTEND: "noninteractive" };
  const spareBytes = freemem();
  if (spareBytes >= comfortableBytes) {
    // The tree has device nodes and setuid programs that its own scripts use.
    mount("croft", treeDir, "tmpfs", 0, `size=${Math.floor(spareBytes / 2)},mode=755`);
    try {
      return await follow(argv, env, topic, call);
    } catch (error) {
      // Half of the memory was too little; the disk may have more.
      if (!isFault(error, "exhausted")) throw error;
    } finally {
      await unmount(treeDir, { detach: true });
    }
    await rm(tarPath, { force: true });
  }
  await follow(argv, env, topic, call);
}

/** Runs the program, with what it says on stderr as progress and, when it fails, as the reason. */
async function follow(
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  topic: string,
  call: Call,
): Promise<void> {
  using bounded = withDeadline(call, buildMs, topic);
  const child = stream(argv, { env, attempted: topic }, bounded);
  child.stdin.end();
  const said: string[] = [];
  const output = text(child.stdout);
  for await (const line of createInterface({ input: child.stderr })) {
    if (line.startsWith("I: ")) call.report({ topic, state: line.slice(3) });
    else if (said.push(line) > 200) said.shift();
  }
  await output;
  const exit = await child.exited;
  if (exit.code === 0) return;
  if (bounded.signal.aborted) throw Fault.from(bounded.signal.reason, topic);
  const errors = said.filter((line) => /^(?:E|W): |error|unable|no space/i.test(line));
  const reason = /no space left/i.test(said.join("\n")) ? "exhausted" : "failed";
  throw new Fault(
    reason,
    `${topic}: ${(errors.length > 0 ? errors : said).slice(-8).join("\n") || "mmdebstrap failed"}`,
    {
      hint:
        reason === "exhausted"
          ? "free some disk space"
          : "check the names of the packages and this machine's way to a Debian mirror",
    },
  );
}

/**
 * Where this machine's own apt gets that suite from, so that a mirror, a proxy or a snapshot chosen here is used for
 * images too. Empty when it does not know the suite; mmdebstrap then has its own defaults.
 */
async function hostSources(suite: string, call: Call): Promise<readonly string[]> {
  const format = "$(SITE) $(RELEASE) $(COMPONENT)";
  const { stdout } = await run(
    ["apt-get", "indextargets", "--format", format, "Created-By: Packages"],
    { attempted: "ask apt for its sources" },
    call,
  );
  const releases = new Set([suite, `${suite}-updates`, `${suite}-security`]);
  const lines = new Set<string>();
  for (const line of stdout.split("\n")) {
    const [site = "", release = "", component = ""] = line.split(" ");
    if (releases.has(release)) lines.add(`deb ${site} ${release} ${component}`);
  }
  const sources = [...lines].toSorted();
  // The suite itself is needed; its updates alone make no system.
  return sources.some((line) => line.split(" ")[2] === suite) ? sources : [];
}

/** How this machine's apt reaches its sources: proxies, credentials' places, retries, what to make of old dates. */
async function hostAptOptions(call: Call): Promise<string> {
  const { stdout } = await run(["apt-config", "dump"], { attempted: "ask apt for its options" }, call);
  const wanted = /^Acquire::(?:https?|ftp|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]|Languages)\b/;
  const lines = stdout.split("\n").filter((line) => wanted.test(line));
  return `${[...lines, 'APT::Sandbox::User "root";'].join("\n")}\n`;
}
