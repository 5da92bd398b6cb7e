// A kernel for guests: Debian's cloud kernel, unpacked where only Croft looks. Installing its package would put it into the
// boot menu of the machine itself, which is not ours to change.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { say } from "./node.mjs";

const place = "/usr/lib/croft/kernel";
/** What names the newest one: on Debian, and on Ubuntu. */
const metaPackages = { x64: ["linux-image-cloud-amd64", "linux-image-virtual"], arm64: ["linux-image-cloud-arm64"] };

/** Fetches it unless there is one already, here or as the machine's own. Without it everything but microVMs works. */
export function fetchGuestKernel() {
  if (kernelIn(`${place}/boot`, /^vmlinuz-/) || kernelIn("/boot", /^vmlinuz-.*cloud/)) return;
  let packages = kernelPackages();
  if (packages.length === 0 && spawnSync("apt-get", ["update", "-q"]).status === 0) packages = kernelPackages();
  if (packages.length === 0) {
    say("no kernel for microVMs: this distribution's packages have none that is known here; croft doctor says more");
    return;
  }
  say(`fetching a kernel for microVMs: ${packages.join(" ")}`);
  const scratch = mkdtempSync(join(tmpdir(), "croft-kernel-"));
  const fresh = `${place}.new`;
  try {
    run("apt-get", ["download", "-q", ...packages], scratch);
    rmSync(fresh, { recursive: true, force: true });
    mkdirSync(fresh, { recursive: true });
    for (const file of readdirSync(scratch)) run("dpkg-deb", ["-x", join(scratch, file), fresh]);
    // Which module needs which: the package's own script would write it, for the host.
    for (const version of readdirSync(join(fresh, "lib/modules"))) run("depmod", ["-b", fresh, version]);
    rmSync(place, { recursive: true, force: true });
    renameSync(fresh, place);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function kernelIn(directory, name) {
  try {
    return readdirSync(directory).some((entry) => name.test(entry));
  } catch {
    return false;
  }
}

/** The packages with the kernel and its modules that a meta-package stands for; none when it is not known here. */
function kernelPackages() {
  for (const name of metaPackages[process.arch] ?? []) {
    const { stdout } = spawnSync("apt-cache", ["depends", "--important", name], { encoding: "utf8" });
    const image = /Depends: (linux-image-[0-9]\S+)/.exec(stdout ?? "")?.[1];
    if (image === undefined) continue;
    const modules = image.replace("linux-image-", "linux-modules-");
    const known = spawnSync("apt-cache", ["show", "--no-all-versions", modules], { encoding: "utf8" });
    return known.status === 0 ? [image, modules] : [image];
  }
  return [];
}

function run(program, args, cwd) {
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, env, encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} failed:\n${stdout ?? ""}${stderr ?? error}`);
}
