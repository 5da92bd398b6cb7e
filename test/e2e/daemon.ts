import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { connect, type Client } from "../../src/client/client.ts";
import type { Event } from "../../src/client/message.ts";

export const checkout = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const startLimitMs = 60_000;

/** What a finished command line said. */
export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A real daemon with a root of its own, driven as a person drives it, and taken off the host at the end. */
export class TestDaemon implements AsyncDisposable {
  readonly root: string;
  readonly socketPath: string;
  readonly client: Client;
  #process: ChildProcess | undefined;
  #hasDisk = false;

  private constructor(root: string) {
    this.root = root;
    this.socketPath = join(root, "run", "croft.sock");
    this.client = connect({ kind: "unix", socketPath: this.socketPath });
  }

  /**
   * Starts one in a fresh root beneath the directory that the test runner looks into for leftovers. With `disk`, its
   * durable state lies on a file system of its own.
   */
  static async start(disk?: { readonly sizeMib: number; readonly kind: "ext4" | "xfs" }): Promise<TestDaemon> {
    const daemon = new TestDaemon(mkdtempSync(join(process.env["CROFT_TEST_DIR"] ?? tmpdir(), "cr-e2e-")));
    if (disk !== undefined) {
      daemon.#hasDisk = true;
      execFileSync("truncate", ["-s", `${disk.sizeMib}M`, join(daemon.root, "disk")]);
      execFileSync(`mkfs.${disk.kind}`, ["-q", join(daemon.root, "disk")]);
      daemon.mountDisk();
    }
    try {
      await daemon.start();
    } catch (error) {
      await daemon.kill9();
      throw error;
    }
    return daemon;
  }

  /** As it is on a host where the database and images are there already. Resolves when the API answers. */
  async start(): Promise<void> {
    const log = openSync(this.logPath, "a");
    const child = spawn(join(checkout, "bin", "croftd"), ["--root", this.root], {
      stdio: ["ignore", log, log],
      detached: true,
    });
    closeSync(log);
    this.#process = child;
    const untilMs = Date.now() + startLimitMs;
    for (;;) {
      if (child.exitCode !== null) throw new Error(`croftd ended with code ${child.exitCode}:\n${this.log()}`);
      if (existsSync(this.socketPath)) {
        const answered = await this.client.host.get().then(
          (host) => host.pid === child.pid,
          () => false,
        );
        if (answered) return;
      }
      if (Date.now() > untilMs) throw new Error(`croftd did not answer within ${startLimitMs} ms:\n${this.log()}`);
      await sleep(20);
    }
  }

  get libDir(): string {
    return join(this.root, "lib");
  }

  mountDisk(): void {
    mkdirSync(this.libDir, { recursive: true });
    execFileSync("mount", ["-o", "loop", join(this.root, "disk"), this.libDir]);
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  get logPath(): string {
    return join(this.root, "croftd.log");
  }

  log(): string {
    return readFileSync(this.logPath, "utf8");
  }

  /** As a power cut would, for the process: nothing of it runs any code. */
  async kill9(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** As a service manager does. */
  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** Runs `croft ARGS` against this daemon. Never throws for an exit code. */
  croft(
    args: readonly string[],
    options: {
      readonly input?: string;
      readonly cwd?: string;
      readonly env?: Record<string, string>;
      readonly limitMs?: number;
    } = {},
  ): Promise<Said> {
    return finished(join(checkout, "bin", "croft"), args, {
      ...options,
      env: { ...process.env, CROFT_ROOT: this.root, NO_COLOR: "1", ...options.env },
    });
  }

  /** Every event so far. */
  async events(): Promise<readonly Event[]> {
    return await Array.fromAsync(this.client.events.watch({ after: 0, noFollow: true }));
  }

  /** A folder for a stack file, with busybox beside it to build images from; lies within the root. Scripts can be run. */
  folder(name: string, files: Readonly<Record<string, string>>): string {
    const folder = join(this.root, "stacks", name);
    mkdirSync(folder, { recursive: true });
    copyFileSync("/bin/busybox", join(folder, "busybox"));
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text, { mode: text.startsWith("#!") ? 0o755 : 0o644 });
    }
    return folder;
  }

  /** Ends it and takes everything of it off the host. Leftovers are for the test runner to find. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    const { code, stderr } = await finished(join(checkout, "bin", "croftd"), ["--root", this.root, "--teardown"], {
      env: process.env,
    });
    if (code !== 0) throw new Error(`teardown failed: ${stderr}`);
    if (this.#hasDisk) execFileSync("umount", [this.libDir]);
    rmSync(this.root, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }
}

/** An image of nothing but busybox, as a section for a stack file in a folder made by `folder`. */
export const busyboxImage = `
[image.box]
from  = "scratch"
files = { "/bin/busybox" = "./busybox", "/bin/sh" = "./busybox" }
`;

/** No command of a test takes this long, but where the test says so: it hangs, and the test says which one. */
const commandLimitMs = 300_000;

function finished(
  program: string,
  args: readonly string[],
  options: {
    readonly input?: string;
    readonly cwd?: string;
    readonly env: NodeJS.ProcessEnv;
    readonly limitMs?: number;
  },
): Promise<Said> {
  const limitMs = options.limitMs ?? commandLimitMs;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: options.cwd, env: options.env, stdio: ["pipe", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    const limit = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new Error(`${program} ${args.join(" ")} did not end within ${limitMs} ms:\n${stdout}${stderr}`));
    }, limitMs);
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.once("error", reject);
    child.once("close", (code, signal) => {
      clearTimeout(limit);
      resolve({ code: code ?? (signal === null ? 1 : 128), stdout, stderr });
    });
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
  });
}
