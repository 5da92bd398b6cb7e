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
import { checkout, type Said } from "./daemon.ts";

/** The compiled runtime, which `npm test` makes. */
export const runtime = join(checkout, "dist", "croft-oci");

export interface State {
  readonly id: string;
  readonly pid: number;
  readonly status: string;
  readonly bundle: string;
  readonly ociVersion: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

type Config = Record<string, unknown> & {
  process: Record<string, unknown>;
  root: Record<string, unknown>;
  linux: Record<string, unknown>;
};

/** A bundle with busybox in it and a root for the runtime's records, in a directory that goes away at the end. */
export class Ground implements Disposable {
  readonly directory: string;
  readonly root: string;
  /** Control groups of its containers lie beneath it. */
  readonly cgroup: string;
  readonly #engine: readonly string[];
  readonly #timeoutMs: number;

  /** No command takes longer than `timeoutMs`, or it hangs. */
  constructor(engine: readonly string[] = [], timeoutMs = 60_000) {
    if (!existsSync(runtime)) throw new Error(`${runtime} is not there: npm test compiles it`);
    this.directory = mkdtempSync(join(process.env["CROFT_TEST_DIR"] ?? tmpdir(), "cr-oci-"));
    this.root = join(this.directory, "state");
    this.cgroup = `/${basename(this.directory)}`;
    this.#engine = engine;
    this.#timeoutMs = timeoutMs;
  }

  /** A bundle called `name`, whose program is `args`. */
  bundle(name: string, args: readonly string[], change: (config: Config) => void = () => {}): string {
    const bundle = join(this.directory, "bundle", name);
    const bin = join(bundle, "rootfs", "bin");
    mkdirSync(bin, { recursive: true });
    copyFileSync("/bin/busybox", join(bin, "busybox"));
    for (const applet of ["sh", "sleep", "true", "cat", "echo", "id"]) symlinkSync("busybox", join(bin, applet));
    for (const directory of ["proc", "dev", "sys", "tmp", "data"]) mkdirSync(join(bundle, "rootfs", directory));
    const config: Config = {
      ociVersion: "1.0.2",
      process: { cwd: "/", args, env: ["PATH=/bin"], user: { uid: 0, gid: 0 } },
      root: { path: "rootfs" },
      mounts: [
        { destination: "/proc", type: "proc", source: "proc" },
        { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
      ],
      linux: {
        namespaces: ["pid", "network", "mount", "ipc", "uts"].map((type) => ({ type })),
        cgroupsPath: `${this.cgroup}/${name}`,
      },
    };
    change(config);
    writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
    return bundle;
  }

  /** Runs one command. Its output goes to files, as what stays behind a container keeps a pipe open. */
  oci(args: readonly string[], options: { readonly input?: string; readonly stdio?: readonly number[] } = {}): Said {
    // By a shell's redirections: a file's descriptor of ours would be shared with the container.
    const argv = ["-c", '"$@" >"$0.out" 2>"$0.err"', join(this.directory, "said"), runtime, ...this.args(args)];
    const { status, signal } = spawnSync("sh", argv, {
      timeout: this.#timeoutMs,
      stdio: [options.input === undefined ? "ignore" : "pipe", "ignore", "ignore", ...(options.stdio ?? [])],
      ...(options.input === undefined ? {} : { input: options.input }),
    });
    if (signal !== null) throw new Error(`croft-oci ${args.join(" ")} did not end`);
    return {
      code: status ?? -1,
      stdout: readFileSync(join(this.directory, "said.out"), "utf8"),
      stderr: readFileSync(join(this.directory, "said.err"), "utf8"),
    };
  }

  /** The whole command line for one command. */
  args(args: readonly string[]): readonly string[] {
    return ["--root", this.root, ...this.#engine, ...args];
  }

  /** Like `oci`, and an error when it fails. */
  ok(args: readonly string[], options: { readonly input?: string } = {}): string {
    const { code, stdout, stderr } = this.oci(args, options);
    if (code !== 0) throw new Error(`croft-oci ${args.join(" ")} ended with ${code}: ${stderr}`);
    return stdout;
  }

  state(id: string): State {
    return JSON.parse(this.ok(["state", id])) as State;
  }

  /** Starts a command and does not wait for it. */
  start(args: readonly string[]): Promise<number> {
    const child = spawn(runtime, this.args(args), { stdio: "ignore" });
    return new Promise((resolve) => child.once("exit", (code) => resolve(code ?? -1)));
  }

  /** What is left on the host: records, control groups, processes in them. */
  traces(): readonly string[] {
    const records = ["crun", "runc", "microvm", "machine"].flatMap((engine) =>
      namesIn(join(this.root, engine)).map((id) => `record ${engine}/${id}`),
    );
    const groups = this.#groups();
    const pids = groups.flatMap((group) =>
      readFileSync(join(group, "cgroup.procs"), "utf8")
        .split("\n")
        .filter(Boolean)
        .map((pid) => `process ${pid} in ${group}`),
    );
    return [...records, ...groups.map((group) => `group ${group}`), ...pids];
  }

  #groups(): readonly string[] {
    return ["", ...namesIn("/sys/fs/cgroup")]
      .map((tree) => join("/sys/fs/cgroup", tree, this.cgroup))
      .flatMap((top) => namesIn(top).map((name) => join(top, name)))
      .filter((group) => existsSync(join(group, "cgroup.procs")));
  }

  [Symbol.dispose](): void {
    for (const engine of ["crun", "runc", "microvm", "machine"]) {
      for (const id of namesIn(join(this.root, engine))) this.oci(["delete", "--force", id]);
    }
    for (const group of this.#groups()) spawnSync("rmdir", [group]);
    for (const tree of ["", ...namesIn("/sys/fs/cgroup")]) {
      const top = join("/sys/fs/cgroup", tree, this.cgroup);
      if (existsSync(top)) spawnSync("rmdir", [top]);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
