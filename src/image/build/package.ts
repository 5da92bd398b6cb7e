import { chmod, mkdir, readdir, stat, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { fileExists } from "../../host/file.ts";
import { run } from "../../host/process.ts";
import { buildEpochSec } from "./epoch.ts";

/** A Debian package, optionally of a version or architecture: `nginx-light`, `redis=5:7.0.15-1`, `libc6:arm64`. */
const packagePattern = /^[a-z0-9][a-z0-9+.-]{1,100}(?::[a-z0-9]{2,20})?(?:=[A-Za-z0-9.+:~-]{1,100})?$/;

/** Throws an `invalid` Fault for what is not the name of a package; it never reaches a command line. */
export function checkPackages(packages: readonly string[]): void {
  for (const name of packages) {
    if (!packagePattern.test(name)) {
      throw new Fault("invalid", `"${name.slice(0, 100)}" is not the name of a Debian package`, {
        hint: "write names such as nginx-light or redis-server",
      });
    }
  }
}

/**
 * Unpacks Debian packages, without their dependencies and without running their scripts, and writes the tree as tar: the
 * packages of an image `from = "scratch"`. They are downloaded by the host's own apt, which checks their signatures.
 *
 * busybox-static also gets the links under which its commands are known, so that such an image has a shell.
 *
 * @param workDir an empty directory, which the caller removes
 */
export async function writePackageTar(
  packages: readonly string[],
  workDir: string,
  tarPath: string,
  call: Call,
): Promise<void> {
  const topic = `packages ${packages.join(" ")}`;
  call.report({ topic, state: "downloading" });
  const archives = await download(packages, workDir, call);
  call.report({ topic, state: "unpacking" });
  const withApplets = packages.some((name) => /^busybox-static(?:[:=]|$)/.test(name));
  await unpackPackages(archives, withApplets, workDir, tarPath, call);
}

/** The second half of it: from package files to tar. */
export async function unpackPackages(
  archives: readonly string[],
  withApplets: boolean,
  workDir: string,
  tarPath: string,
  call: Call,
): Promise<void> {
  const root = join(workDir, "root");
  await mkdir(root);
  for (const archive of archives) {
    await run(["dpkg-deb", "--extract", archive, root], { attempted: `unpack ${archive}` }, call);
  }
  if (withApplets) await linkApplets(root, call);
  // The directory's own mode is the umask's; the image's root must be open to every user.
  await chmod(root, 0o755);
  await run(
    ["tar", ...reproducible, "-C", root, "-cf", tarPath, "."],
    { attempted: "pack the packages", timeoutMs },
    call,
  );
}

const timeoutMs = 10 * 60_000;

/** Names sorted, numbers for owners, no times but the files' own: the same packages are the same bytes. */
const reproducible: readonly string[] = [
  "--sort=name",
  "--numeric-owner",
  "--format=posix",
  "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
  `--mtime=@${buildEpochSec}`,
  "--clamp-mtime",
];

/** The packages' files. Uses the host's package lists; when those are missing or too old, lists of its own. */
async function download(packages: readonly string[], workDir: string, call: Call): Promise<readonly string[]> {
  const directory = join(workDir, "archive");
  await mkdir(directory);
  // Nothing of the host's apt is written: not its cache, and with own lists not its state either.
  const quiet = ["-qq", "-o", "APT::Sandbox::User=root", "-o", `Dir::Cache=${join(workDir, "cache")}`];
  await mkdir(join(workDir, "cache", "archives", "partial"), { recursive: true });
  const fetch = async (options: readonly string[]): Promise<void> => {
    const attempted = `download the packages ${packages.join(" ")}`;
    await run(["apt-get", ...options, "download", ...packages], { cwd: directory, attempted, timeoutMs }, call);
  };
  try {
    await fetch(quiet);
  } catch (error) {
    if (!isFault(error, "failed")) throw error;
    const lists = join(workDir, "lists");
    await mkdir(join(lists, "partial"), { recursive: true });
    const own = [...quiet, "-o", `Dir::State::Lists=${lists}`];
    await run(["apt-get", ...own, "update"], { attempted: "read Debian's package lists", timeoutMs }, call);
    await fetch(own);
  }
  const names = (await readdir(directory)).filter((name) => name.endsWith(".deb")).toSorted();
  return names.map((name) => join(directory, name));
}

/** `/bin/sh`, `/usr/bin/awk` and the others. The program itself says what it can do; it comes from a signed package. */
async function linkApplets(root: string, call: Call): Promise<void> {
  const program = join(root, "bin/busybox");
  if (!(await stat(program)).isFile()) throw new Fault("failed", "busybox-static does not hold /bin/busybox");
  const { stdout } = await run([program, "--list-full"], { attempted: "list the commands of busybox" }, call);
  for (const applet of stdout.split("\n")) {
    if (!/^(?:usr\/)?s?bin\/[A-Za-z0-9[._-]+$/.test(applet)) continue;
    const path = join(root, applet);
    if (await fileExists(path)) continue;
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    await symlink("/bin/busybox", path);
  }
}
