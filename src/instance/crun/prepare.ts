import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Fault, isFault } from "../../base/fault.ts";
import { readFileBeneath } from "../../host/beneath.ts";
import { RLIMIT_NOFILE, resourceLimit } from "../../host/kernel.ts";
import type { ProgramLaunch } from "../contract.ts";
import { boundingCapabilities } from "../monitor/capability.ts";
import { bindMount, depth, type HostFacts, ociConfig, type OciConfig, type OciMount, tmpfsMount } from "./config.ts";
import type { Hierarchies } from "../../host/cgroup.ts";
import type { InstancePaths } from "../monitor/layout.ts";
import { MountTree } from "./mountpoint.ts";
import { namesOf, type ResolvedUser, resolveUser } from "./user.ts";

/** Larger than any honest passwd or group file, and still quickly read. */
const accountFileBytes = 4 * 2 ** 20;

/** What this process may hand on to an instance. */
export function hostFacts(hierarchies: Hierarchies): HostFacts {
  const memory = hierarchies["memory"];
  return {
    arch: process.arch,
    capabilities: boundingCapabilities(readFileSync("/proc/self/status", "utf8")),
    openFiles: resourceLimit(RLIMIT_NOFILE),
    oomScoreAdj: Number(readFileSync("/proc/self/oom_score_adj", "utf8")),
    swapAccounting: memory === undefined || existsSync(join(memory, "memory.memsw.limit_in_bytes")),
  };
}

/**
 * Looks into the image's tree, makes what mounts need in it, and returns the configuration to run. Done before every
 * start, as the workload may have put a link where a directory was.
 */
export async function prepare(launch: ProgramLaunch, paths: InstancePaths, host: HostFacts): Promise<OciConfig> {
  if (launch.root.kind !== "directory") throw new Fault("bug", `${launch.id}: a container takes a directory as root`);
  const rootPath = launch.root.path;
  const tree = new MountTree(rootPath);
  const user = await lookUpUser(launch.user, rootPath);
  const mounts = placeMounts(launch, tree, user, paths);
  const workdir = tree.workdir(launch.workdir === "" ? "/" : launch.workdir);
  return ociConfig(launch, { user, workdir, mounts, cgroupPath: paths.cgroup }, host);
}

/** `invalid` when the image does not have that user. */
export async function lookUpUser(text: string, rootPath: string): Promise<ResolvedUser> {
  const [passwd, group] = await Promise.all([
    readAccounts(rootPath, "/etc/passwd"),
    readAccounts(rootPath, "/etc/group"),
  ]);
  return resolveUser(text, passwd, group);
}

/** Names of the users of a root by their number. */
export async function userNames(rootPath: string): Promise<ReadonlyMap<number, string>> {
  return namesOf(await readAccounts(rootPath, "/etc/passwd"));
}

async function readAccounts(rootPath: string, path: string): Promise<string> {
  try {
    return (await readFileBeneath(rootPath, path, accountFileBytes)).toString("utf8");
  } catch (error) {
    if (isFault(error, "not-found")) return "";
    if (!isFault(error, "exhausted")) throw error;
    throw new Fault("hostile", `${path} of the image is larger than ${accountFileBytes} bytes`, { cause: error });
  }
}

function placeMounts(launch: ProgramLaunch, tree: MountTree, user: ResolvedUser, paths: InstancePaths): OciMount[] {
  const asked = [...launch.mounts].sort((left, right) => depth(left.destination) - depth(right.destination));
  const files = injectedFiles(launch).filter(
    ({ destination }) => !asked.some((mount) => mount.destination === destination),
  );
  const placed = asked.map((mount): OciMount => {
    if (mount.kind === "bind") {
      return bindMount(mount.source, tree.addBind(mount.source, mount.destination).path, mount.readOnly);
    }
    if (mount.kind === "tmpfs") {
      return tmpfsMount(tree.addTmpfs(mount.destination).path, mount.sizeBytes, mount.mode);
    }
    const source = join(paths.filesDir, String(launch.mounts.indexOf(mount)));
    // Owned by whom the program runs as: a secret with mode 0400 is of use to it and to nobody else.
    chownSync(source, user.uid, user.gid);
    chmodSync(source, mount.mode);
    return bindMount(source, tree.addBind(source, mount.destination).path, true);
  });
  mkdirSync(paths.etcDir, { recursive: true, mode: 0o700 });
  const own = files.map(({ destination, name, content }) => {
    const source = join(paths.etcDir, name);
    // Kept when it is there: the running instance has this very file mounted.
    if (!existsSync(source)) writeFileSync(source, content, { mode: 0o644 });
    return bindMount(source, tree.addBind(source, destination).path, false);
  });
  return [...placed, ...own];
}

/** Writes the contents of the launch's files; the rest of a launch is plain data (`launchRecord`). */
export function writeFiles(launch: ProgramLaunch, paths: InstancePaths): void {
  for (const directory of [paths.filesDir, paths.etcDir]) rmSync(directory, { recursive: true, force: true });
  mkdirSync(paths.filesDir, { recursive: true, mode: 0o700 });
  launch.mounts.forEach((mount, index) => {
    if (mount.kind === "file") writeFileSync(join(paths.filesDir, String(index)), mount.content, { mode: 0o600 });
  });
}

/** What every program expects to find, and only the host knows. The workload may change them, as docker allows. */
function injectedFiles(launch: ProgramLaunch): { destination: string; name: string; content: string }[] {
  const { resolvers } = launch.attachment;
  // With a resolver the own name is asked there, and is the address that others reach; without one it is a loopback one.
  const self = resolvers.length > 0 ? "" : `127.0.1.1\t${launch.hostname}\n`;
  const hosts = `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n${self}`;
  return [
    { destination: "/etc/hosts", name: "hosts", content: hosts },
    { destination: "/etc/hostname", name: "hostname", content: `${launch.hostname}\n` },
    {
      destination: "/etc/resolv.conf",
      name: "resolv.conf",
      content: resolvers.map((address) => `nameserver ${address}\n`).join(""),
    },
  ];
}
