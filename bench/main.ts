/**
 * Croft side by side with what a person would use instead, on this machine, in one run.
 *
 *     npm run bench                       all of it, some four minutes
 *     npm run bench -- --only run,exec    some of it
 *     npm run bench -- --rounds 21        longer, for quieter medians
 *     npm run bench -- --json             one object a line
 *
 * Everything runs in namespaces of its own and is gone afterwards. A figure that is missed is said, and is no failure.
 */
import { spawnSync } from "node:child_process";
import { existsSync, globSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { homeBeneath } from "../src/base/home.ts";
import { startContainerd } from "./contender/containerd.ts";
import type { Contender } from "./contender/contender.ts";
import { startCroft } from "./contender/croft.ts";
import { startCrun } from "./contender/crun.ts";
import { startDocker } from "./contender/docker.ts";
import { startPodman } from "./contender/podman.ts";
import { writeBusyboxArchive } from "./image.ts";
import { runSync } from "./process.ts";
import type { Row } from "./row.ts";
import { table } from "./table.ts";
import { exec } from "./work/exec.ts";
import { fifty } from "./work/fifty.ts";
import type { Ground } from "./work/ground.ts";
import { idle } from "./work/idle.ts";
import { machine } from "./work/machine.ts";
import { microvm } from "./work/microvm.ts";
import { oci } from "./work/oci.ts";
import { plan } from "./work/plan.ts";
import { pull } from "./work/pull.ts";
import { run } from "./work/run.ts";

/** `idle` is first, as it needs fresh daemons. */
const works = [idle, run, exec, fifty, machine, microvm, pull, plan, oci];
const namespaces = ["-n", "-m", "-p", "-f", "--mount-proc", "--kill-child", "--propagation", "private"];
/** The first process of the namespace is a shell, which buries whatever loses its parent: libvirt waits for that. */
const init = ["sh", "-c", '"$@"; exit $?', "sh"];
const folderName = "CROFT_BENCH_FOLDER";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    rounds: { type: "string", default: "9" },
    json: { type: "boolean", default: false },
  },
});
const chosen = values.only?.split(",") ?? works.map(({ name }) => name);
const unknown = chosen.find((name) => !works.some((work) => work.name === name));
if (unknown !== undefined) {
  console.error(`there is no work "${unknown}"; there is: ${works.map(({ name }) => name).join(", ")}`);
  process.exit(64);
}

const inside = process.env[folderName];
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  // The first process of a pid namespace is deaf to signals that it does not ask for, and ends all others with it. The one
  // outside stays to clean up.
  process.on(signal, () => (inside === undefined ? undefined : process.exit(130)));
}
if (inside === undefined) enterNamespaces();
else await measureAll(inside);

/** Runs this file again where nothing that happens reaches the host, and cleans up what no namespace holds. */
function enterNamespaces(): void {
  const folder = mkdtempSync(join(tmpdir(), "croft-bench-"));
  const node = [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)];
  try {
    const { status } = spawnSync("unshare", [...namespaces, ...init, ...node], {
      stdio: "inherit",
      env: { ...process.env, [folderName]: folder, CROFT_TEST_DIR: folder },
    });
    process.exitCode = status ?? 1;
  } finally {
    removeCgroups(cgroupOf(folder));
    // Our own daemon removes its own, unless it was interrupted.
    for (const root of globSync(join(folder, "cr-e2e-*"))) removeCgroups(homeBeneath(root).prefix);
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureAll(folder: string): Promise<void> {
  makePrivate(folder);
  const contenders = await startContenders(folder);
  try {
    const archive = join(folder, "box.tar");
    await writeBusyboxArchive(archive, "bench/box:1");
    const cacheFolder = join(tmpdir(), "croft-bench-cache");
    mkdirSync(cacheFolder, { recursive: true });
    const ground: Ground = { contenders, rounds: Number(values.rounds), folder, cacheFolder };
    const rows: Row[] = [];
    let isLoaded = false;
    for (const work of works.filter(({ name }) => chosen.includes(name))) {
      say(work.name);
      if (work !== idle && !isLoaded) {
        for (const contender of contenders) contender.load(archive);
        isLoaded = true;
      }
      const measured = await work.measure(ground);
      rows.push(...measured);
      if (values.json) for (const row of measured) console.log(JSON.stringify(row));
    }
    if (!values.json) console.log(`\n${table(rows)}`);
  } finally {
    for (const contender of contenders) await contender.stop();
  }
}

async function startContenders(folder: string): Promise<readonly Contender[]> {
  const cgroup = cgroupOf(folder);
  say("starting the daemons");
  return [
    await startCroft(),
    await startDocker(join(folder, "docker"), cgroup),
    startPodman(join(folder, "podman"), cgroup),
    await startContainerd(join(folder, "containerd"), cgroup),
    startCrun(join(folder, "crun"), cgroup),
  ];
}

/** Covers the places where peers insist on keeping things, so that what they write is ours. */
function makePrivate(folder: string): void {
  runSync({ argv: ["ip", "link", "set", "lo", "up"] });
  runSync({ argv: ["mount", "-t", "tmpfs", "bench", "/run"] });
  for (const directory of ["/etc", "/opt", "/var/lib"]) {
    const layer = join(folder, "cover", directory);
    for (const name of ["upper", "work"]) mkdirSync(join(layer, name), { recursive: true });
    const option = `lowerdir=${directory},upperdir=${layer}/upper,workdir=${layer}/work`;
    runSync({ argv: ["mount", "-t", "overlay", "-o", option, "bench", directory] });
  }
  mkdirSync("/run/lock", { recursive: true });
  mkdirSync("/opt/cni/bin", { recursive: true });
  runSync({ argv: ["mount", "--bind", "/usr/lib/cni", "/opt/cni/bin"] });
}

function cgroupOf(folder: string): string {
  return folder.slice(folder.lastIndexOf("/") + 1);
}

/** Control groups know no namespaces of ours; whatever was in them is dead by now. */
function removeCgroups(name: string): void {
  const mounts = ["/sys/fs/cgroup", ...readdirSync("/sys/fs/cgroup").map((entry) => `/sys/fs/cgroup/${entry}`)];
  for (const mount of mounts) removeGroup(join(mount, name));
}

function removeGroup(directory: string): void {
  if (!existsSync(directory)) return;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeGroup(join(directory, entry.name));
  }
  rmdirSync(directory);
}

function say(words: string): void {
  if (!values.json) console.error(`· ${words}`);
}
