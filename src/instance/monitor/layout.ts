import { join } from "node:path";
import type { Home } from "../../base/home.ts";
import { type InstanceId, shortHash } from "../../base/id.ts";

/** Which kind of engine keeps its things there: several live in one home. */
export type LayoutKind = "container" | "microvm" | "machine";

/**
 * Where an engine keeps what belongs to it. All names derive from the instance's id, so that after a crash everything
 * is found again.
 *
 * What holds secrets (environment, injected files) lies beneath the run directory, which is memory: a disk never sees
 * it, and after a reboot `reconcile` creates the instance again. What the workload may fill is on disk: its log, and the
 * files that it finds in `/etc` and may write to. The host's memory is not its to fill.
 */
export interface Layout {
  readonly runDir: string;
  readonly instancesDir: string;
  /** conmon writes here, as `<id>`, the exit code of a main process that ended. */
  readonly exitDir: string;
  /** The runtimes' own records, one directory for each instance. */
  readonly stateDir: string;
  /** Short links to bundles, as the path of a socket is limited to 107 bytes. */
  readonly socketDir: string;
  readonly logsDir: string;
  /** What the last probe of this boot found. */
  readonly probeFile: string;
  /** The control group of the monitors: not the daemon's own, which a service manager empties when it stops us. */
  readonly monitorCgroup: string;
  of(id: InstanceId): InstancePaths;
}

export interface InstancePaths {
  /** Made first and removed last: as long as anything of the instance is left, this directory is. */
  readonly dir: string;
  /** The launch as it was asked for. Written last by `create`: without it the instance is half-made. */
  readonly launchFile: string;
  /** Contents of injected files, by their number. */
  readonly filesDir: string;
  /** `hosts`, `hostname` and `resolv.conf` of one run, which the workload may write to. */
  readonly etcDir: string;
  /** Of one run; made anew by each. */
  readonly bundleDir: string;
  readonly configFile: string;
  readonly pidFile: string;
  /** Who the monitor is: `ProcessIdentity`, and when it was started. */
  readonly monitorFile: string;
  readonly controlFifo: string;
  readonly exitFile: string;
  readonly stateDir: string;
  /** crun's init waits for somebody to write to it before it becomes the program. */
  readonly startFifo: string;
  readonly socketLink: string;
  /** Names the socket directory; conmon calls it uuid. */
  readonly socketName: string;
  readonly cgroup: string;
  readonly logDir: string;
}

export function layoutOf(home: Home, kind: LayoutKind): Layout {
  const runDir = join(home.runDir, kind);
  const instancesDir = join(runDir, "instance");
  const exitDir = join(runDir, "exit");
  const stateDir = join(runDir, "state");
  const socketDir = join(runDir, "socket");
  const logsDir = join(home.libDir, "log", kind);
  return {
    runDir,
    instancesDir,
    exitDir,
    stateDir,
    socketDir,
    logsDir,
    probeFile: join(runDir, "probe.json"),
    monitorCgroup: `/${home.prefix}/monitor`,
    of(id) {
      const dir = join(instancesDir, id);
      const bundleDir = join(dir, "bundle");
      const socketName = shortHash(id, 12);
      return {
        dir,
        launchFile: join(dir, "launch.json"),
        filesDir: join(dir, "file"),
        etcDir: join(home.libDir, kind, id),
        bundleDir,
        configFile: join(bundleDir, "config.json"),
        pidFile: join(bundleDir, "pid"),
        monitorFile: join(bundleDir, "monitor.json"),
        controlFifo: join(bundleDir, "winsz"),
        exitFile: join(exitDir, id),
        stateDir: join(stateDir, id),
        startFifo: join(stateDir, id, "exec.fifo"),
        socketLink: join(socketDir, socketName),
        socketName,
        cgroup: `/${home.prefix}/${id}`,
        logDir: join(logsDir, id),
      };
    },
  };
}
