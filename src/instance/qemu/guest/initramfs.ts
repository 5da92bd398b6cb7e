import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { sha256 } from "../../../base/id.ts";
import { hostFault } from "../../../host/errno.ts";
import { findProgram, stream } from "../../../host/process.ts";
import { resolveCapabilities } from "../../monitor/capability.ts";
import { readText } from "../../monitor/record.ts";
import { type CpioEntry, writeCpio } from "./cpio.ts";
import { modulesDirectory } from "./kernel.ts";
import { capabilityWord } from "./launch.ts";
import { linkedProgram } from "./library.ts";
import { moduleName, moduleOrder } from "./module.ts";

/** What a guest begins with: made of programs of this host, the kernel's modules and a few scripts; no compiler. */
export interface Initramfs {
  readonly path: string;
  /** Of its content: equal for equal parts. */
  readonly digest: string;
}

/** Loaded by every guest, in this order as far as they do not need each other. */
const wantedModules = [
  "virtio_mmio",
  "virtio_console",
  "virtio_blk",
  "virtio_net",
  "virtio_rng",
  "erofs",
  "overlay",
  "ext4",
];
/** Loaded when it is known that the guest has volumes; and when its layers share a controller. */
const laterModules = { volume: ["virtiofs"], controller: ["virtio_scsi", "sd_mod"] } as const;

/** By these names the scripts call busybox. */
const applets =
  "sh mount insmod mkdir mkfifo ip stty dd wc cat rm date usleep chroot reboot chmod setsid head tr cmp mv unshare".split(
    " ",
  );

const scripts = ["guest.sh", "enter.sh", "inside.sh", "shell.sh", "usual-root.sh", "runner.sh"];

/**
 * Makes the initramfs for a kernel, unless there is one of the very same parts already. Reads a few megabytes from the
 * page cache to know. `unsupported` when a part is not installed.
 */
export async function prepareInitramfs(version: string, cacheDirectory: string, call: Call): Promise<Initramfs> {
  const archive = writeCpio(await entriesFor(version, call));
  const digest = sha256(archive).slice("sha256:".length);
  const path = join(cacheDirectory, `initramfs-${digest.slice(0, 16)}`);
  if (!existsSync(path)) {
    try {
      mkdirSync(cacheDirectory, { recursive: true, mode: 0o700 });
      writeFileSync(`${path}.new-${process.pid}`, archive, { mode: 0o644, flush: true });
      renameSync(`${path}.new-${process.pid}`, path);
    } catch (error) {
      throw hostFault(error, `write ${path}`);
    }
  }
  return { path, digest };
}

/** What its parts are as of now: as long as this is equal, so is the initramfs. A few microseconds. */
export function initramfsSignature(version: string): string {
  const parts = [
    ...scripts.map(scriptPath),
    scriptPath("init.sh"),
    join(modulesDirectory(version), "modules.dep"),
    ...["busybox", "dropbear", "setpriv", "env"].map((name) => findProgram(name) ?? name),
  ];
  return parts
    .map((path) => {
      const facts = statSync(path, { throwIfNoEntry: false });
      return `${path} ${facts?.ino} ${facts?.size} ${facts?.mtimeMs}`;
    })
    .join("\n");
}

function directory(path: string, mode = 0o755): CpioEntry {
  return { kind: "directory", path, mode };
}

function file(path: string, content: Uint8Array, mode = 0o644): CpioEntry {
  return { kind: "file", path, mode, content };
}

function text(path: string, ...lines: readonly string[]): CpioEntry {
  return file(path, Buffer.from(lines.map((line) => `${line}\n`).join("")));
}

/** In the guest's `/dev`. */
function device(name: string, major: number, minor: number): CpioEntry {
  return { kind: "device", path: `stage/dev/${name}`, major, minor, mode: 0o666 };
}

function link(name: string, target: string): CpioEntry {
  return { kind: "link", path: `stage/dev/${name}`, target };
}

async function entriesFor(version: string, call: Call): Promise<CpioEntry[]> {
  const modules = await modulesOf(version, call);
  const programs = [
    linkedProgram(installed("dropbear", "dropbear-bin")),
    linkedProgram(installed("setpriv")),
    linkedProgram(installed("env", "coreutils")),
  ];
  const libraries = new Map(programs.flatMap((program) => [...program.libraries]));
  return [
    ...["bin", "dev", "proc", "sys", "etc", "cgroup", "layer", "writable", "image"].map((path) => directory(path)),
    directory("root", 0o700),
    directory("run"),
    directory("tmp", 0o1777),
    ...["croft", "croft/bin", "croft/lib", "croft/module"].map((path) => directory(path)),
    file("init", readPart(scriptPath("init.sh")), 0o755),
    ...scripts.map((name) => file(`croft/${name}`, readPart(scriptPath(name)))),
    file("bin/busybox", readPart(installed("busybox", "busybox-static")), 0o755),
    ...applets.map((name): CpioEntry => ({ kind: "link", path: `bin/${name}`, target: "busybox" })),
    ...programs.map(({ path }) => file(`croft/bin/${path.slice(path.lastIndexOf("/") + 1)}`, readPart(path), 0o755)),
    file("croft/lib/loader", readPart(programs[0]?.loader ?? ""), 0o755),
    ...[...libraries].map(([name, path]) => file(`croft/lib/${name}`, readPart(path), 0o755)),
    ...modules.files.map(({ name, content }) => file(`croft/module/${name}.ko`, content)),
    text("croft/modules", ...modules.first.map((name) => `${name}.ko`)),
    ...Object.entries(modules.later).map(([purpose, names]) =>
      text(`croft/modules-${purpose}`, ...names.map((name) => `${name}.ko`)),
    ),
    text("croft/usual-capabilities", capabilityWord(resolveCapabilities({ add: [], drop: [] }))),
    text("etc/passwd", "root::0:0:root:/root:/bin/sh"),
    text("etc/group", "root:x:0:", "tty:x:5:"),
    text("etc/shells", "/bin/sh"),
    ...devices(),
    ...["inject", "inject/proc", "inject/sys", "inject/dev", "inject/etc"].map((path) => directory(path)),
  ];
}

/** What programs find in /dev: the guest's own disks and ports are not among it. */
function devices(): CpioEntry[] {
  const places = [
    "stage",
    "stage/sys",
    "stage/dev",
    "stage/dev/pts",
    "stage/dev/shm",
    "stage/dev/mqueue",
    "stage/dev/.croft",
  ];
  return [
    ...places.map((path): CpioEntry => ({ kind: "directory", path, mode: 0o755 })),
    // The kernel opens it for the first process.
    { kind: "device", path: "dev/console", major: 5, minor: 1, mode: 0o600 },
    device("null", 1, 3),
    device("zero", 1, 5),
    device("full", 1, 7),
    device("random", 1, 8),
    device("urandom", 1, 9),
    device("tty", 5, 0),
    // The program's terminal, when it has one.
    { kind: "device", path: "stage/dev/hvc0", major: 229, minor: 0, mode: 0o600 },
    link("ptmx", "pts/ptmx"),
    link("fd", "/proc/self/fd"),
    link("stdin", "/proc/self/fd/0"),
    link("stdout", "/proc/self/fd/1"),
    link("stderr", "/proc/self/fd/2"),
    link("core", "/proc/kcore"),
    // Busybox is mounted on it.
    { kind: "file", path: "stage/dev/.croft/busybox", mode: 0o755, content: new Uint8Array() },
  ];
}

interface Modules {
  readonly files: readonly { readonly name: string; readonly content: Uint8Array }[];
  readonly first: readonly string[];
  /** By what they are for, without those that are loaded first. */
  readonly later: Readonly<Record<keyof typeof laterModules, readonly string[]>>;
}

async function modulesOf(version: string, call: Call): Promise<Modules> {
  const directory = modulesDirectory(version);
  const dependencies = readText(join(directory, "modules.dep"));
  // Without a directory all must be built in, which only booting shows.
  const builtin =
    dependencies === undefined ? wantedModules.join("\n") : (readText(join(directory, "modules.builtin")) ?? "");
  const first = moduleOrder(wantedModules, [], dependencies ?? "", builtin);
  const later = (wanted: readonly string[]): string[] => {
    const known = `${builtin}\n${wanted.join("\n")}`;
    const all = moduleOrder([...first, ...wanted].map(moduleName), wanted, dependencies ?? "", known);
    return all.filter((path) => !first.includes(path));
  };
  const volume = later(laterModules.volume);
  const controller = later(laterModules.controller);
  const files = [];
  for (const path of new Set([...first, ...volume, ...controller])) {
    files.push({ name: moduleName(path), content: await readModule(join(directory, path), call) });
  }
  return {
    files,
    first: first.map(moduleName),
    later: { volume: volume.map(moduleName), controller: controller.map(moduleName) },
  };
}

async function readModule(path: string, call: Call): Promise<Uint8Array> {
  if (path.endsWith(".ko")) return readPart(path);
  if (path.endsWith(".gz")) return promisify(gunzip)(readPart(path));
  if (path.endsWith(".zst")) return promisify(zstdDecompress)(readPart(path));
  if (path.endsWith(".xz")) return unpackXz(path, call);
  throw new Fault("unsupported", `the kernel's module ${path} is packed in an unknown way`);
}

async function unpackXz(path: string, call: Call): Promise<Uint8Array> {
  const program = stream(["xz", "-dc", "--", path], { timeoutMs: 60_000, attempted: `unpack ${path}` }, call);
  program.stdin.end();
  const [content, exit] = await Promise.all([buffer(program.stdout), program.exited]);
  if (exit.code !== 0) throw new Fault("corrupt", `unpack ${path}: xz refuses it`);
  return content;
}

function scriptPath(name: string): string {
  return join(import.meta.dirname, "script", name);
}

function installed(program: string, packageName: string = program): string {
  const path = findProgram(program);
  if (path !== undefined) return path;
  throw new Fault("unsupported", `${program} is not installed: guests need it`, {
    hint: `install it: apt-get install ${packageName}`,
  });
}

function readPart(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw hostFault(error, `read ${path} for guests`);
  }
}
