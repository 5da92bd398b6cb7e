import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, runSync } from "../process.ts";
import type { Contender } from "./contender.ts";
import { startDaemon } from "./daemon.ts";

/** By its path: a `docker` found earlier on PATH may be another version, or podman in disguise. */
const client = "/usr/bin/docker";

export async function startDocker(folder: string, cgroup: string): Promise<Contender> {
  mkdirSync(folder, { recursive: true });
  const socketPath = join(folder, "docker.sock");
  const dockerd = ["dockerd", "--data-root", join(folder, "data"), "--exec-root", join(folder, "exec")];
  const own = ["--pidfile", join(folder, "pid"), "-H", `unix://${socketPath}`, "--cgroup-parent", `/${cgroup}`];
  const daemon = await startDaemon([...dockerd, ...own], socketPath, join(folder, "log"));
  const docker = (...args: readonly string[]): Command => ({
    argv: [client, ...args],
    env: { DOCKER_HOST: `unix://${socketPath}`, DOCKER_CONFIG: folder },
  });
  return {
    name: "docker",
    daemonPid: daemon.pid,
    load: (archive) => void runSync(docker("load", "-q"), readFileSync(archive)),
    runOnce: (id, argv) => docker("run", "--rm", "--name", id, "bench/box:1", ...argv),
    runDetached: (id, argv) => docker("run", "-d", "--name", id, "bench/box:1", ...argv),
    exec: (id, argv) => docker("exec", id, ...argv),
    remove: (ids) => void runSync(docker("rm", "-f", ...ids)),
    ps: () => docker("ps"),
    api: { socketPath, path: "/v1.41/containers/json" },
    pull: (reference) => docker("pull", "-q", reference),
    forget: (reference) => {
      runSync(docker("rmi", "-f", reference));
      runSync(docker("image", "prune", "-f"));
    },
    stop: () => daemon.stop(),
  };
}
