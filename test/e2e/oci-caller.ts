import { spawn, spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Said } from "./daemon.ts";
import { runtime } from "./oci-bundle.ts";

/** The directory that a caller of runtimes works in, and what its containers leave on the host. */
export class Site implements AsyncDisposable {
  readonly directory: string;
  /** Control groups of its containers lie beneath it. */
  readonly cgroup: string;
  readonly #ends: (() => void | Promise<void>)[] = [];

  constructor() {
    if (!existsSync(runtime)) throw new Error(`${runtime} is not there: npm test compiles it`);
    this.directory = mkdtempSync(join(process.env["CROFT_TEST_DIR"] ?? tmpdir(), "cr-oci-"));
    this.cgroup = `/${basename(this.directory)}`;
    // What callers keep in /run must not meet what the host has there.
    run(["mount", "-t", "tmpfs", "croft-test", "/run"]);
    mkdirSync("/run/lock");
    this.atEnd(() => void run(["umount", "-R", "-l", "/run"]));
  }

  /** What is to be done at the end, the last first. */
  atEnd(action: () => void | Promise<void>): void {
    this.#ends.unshift(action);
  }

  /** The tree of a small image: busybox under its common names. */
  imageTar(): Buffer {
    const tree = mkdtempSync(join(this.directory, "image-"));
    mkdirSync(join(tree, "bin"), { recursive: true });
    for (const directory of ["proc", "dev", "sys", "etc", "run", "tmp", "data"]) mkdirSync(join(tree, directory));
    copyFileSync("/bin/busybox", join(tree, "bin", "busybox"));
    for (const applet of applets) symlinkSync("busybox", join(tree, "bin", applet));
    writeFileSync(join(tree, "bin", "forever"), "#!/bin/sh\nexec sleep 1000000\n", { mode: 0o755 });
    return run(["tar", "-c", "-C", tree, "."]).stdoutBytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends) await end();
    for (const tree of ["", ...readdirSync("/sys/fs/cgroup")]) {
      removeGroup(join("/sys/fs/cgroup", tree, this.cgroup));
    }
    spawnSync("umount", ["-R", "-l", this.directory], { stdio: "ignore" });
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const applets = "sh sleep true false cat echo id ls tty stty hostname touch test wc head grep env mount ip kill".split(
  " ",
);

function removeGroup(directory: string): void {
  if (!existsSync(directory)) return;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeGroup(join(directory, entry.name));
  }
  spawnSync("rmdir", [directory], { stdio: "ignore" });
}

interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  /** Default: ours. */
  readonly cwd?: string;
  /** Default: 60000. */
  readonly timeoutMs?: number;
}

/** Runs a program to its end; an exit code of its own is no error. */
export function finish(argv: readonly string[], options: RunOptions = {}): Said & { readonly stdoutBytes: Buffer } {
  const [program = "", ...args] = argv;
  const { status, signal, stdout, stderr, error } = spawnSync(program, args, {
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    timeout: options.timeoutMs ?? 60_000,
    killSignal: "SIGKILL",
    maxBuffer: 64 * 2 ** 20,
    ...(options.input === undefined ? { stdio: ["ignore", "pipe", "pipe"] } : { input: options.input }),
  });
  if (error !== undefined) throw error;
  if (signal !== null) throw new Error(`${argv.join(" ")} was ended by ${signal}: ${stderr.toString()}`);
  return { code: status ?? -1, stdout: stdout.toString(), stderr: stderr.toString(), stdoutBytes: stdout };
}

/** Like `finish`, and an error when it fails. */
export function run(argv: readonly string[], options: RunOptions = {}): Said & { readonly stdoutBytes: Buffer } {
  const said = finish(argv, options);
  if (said.code !== 0) throw new Error(`${argv.join(" ")} ended with ${said.code}: ${said.stdout}${said.stderr}`);
  return said;
}

/** Runs it with a terminal for its standard streams, and returns what the terminal showed. */
export function onTerminal(argv: readonly string[], options: RunOptions = {}): string {
  const words = argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
  const { stdout } = run(["script", "-qec", `stty cols 91 rows 37; ${words}`, "/dev/null"], options);
  // What a terminal shows of an end of input.
  return stdout.replaceAll("\r", "").replaceAll(/\^@|\0/g, "");
}

/** Starts a daemon and waits until it answers; it is ended with the site. */
export async function startDaemon(site: Site, argv: readonly string[], isReady: () => boolean): Promise<void> {
  const [program = "", ...args] = argv;
  const log = join(site.directory, `${basename(program)}.log`);
  const child = spawn("sh", ["-c", 'log=$0; exec "$@" >"$log" 2>&1', log, program, ...args], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  site.atEnd(async () => {
    child.kill("SIGTERM");
    await ended;
  });
  const untilMs = Date.now() + 60_000;
  while (!isReady()) {
    if (child.exitCode !== null || Date.now() > untilMs) {
      throw new Error(`${program} did not start:\n${readFileSync(log, "utf8").split("\n").slice(-15).join("\n")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Words of `run` by which a program says as whom and where it is. */
export const asSomebody: readonly string[] = "--user 7:8 --workdir /tmp --env A=b --hostname name box:1 /bin/sh -c"
  .split(" ")
  .concat("id; pwd; echo $A; hostname");
