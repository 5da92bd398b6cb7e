import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, runSync } from "../process.ts";
import { bridgeConfig } from "./cni.ts";
import type { Contender } from "./contender.ts";
import { startDaemon } from "./daemon.ts";

/**
 * containerd with its own command line, and CNI for addresses. `ctr` looks for that in fixed places, which the caller
 * made private to us.
 */
export async function startContainerd(folder: string, namespace: string): Promise<Contender> {
  mkdirSync(folder, { recursive: true });
  const socketPath = join(folder, "containerd.sock");
  const config = `version = 2
root = "${folder}/root"
state = "${folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "${socketPath}"
`;
  writeFileSync(join(folder, "config.toml"), config);
  mkdirSync("/etc/cni/net.d", { recursive: true });
  writeFileSync("/etc/cni/net.d/10-bench.conflist", bridgeConfig("bench", "bench0", "10.89.0.0/16"));
  const argv = ["containerd", "-c", join(folder, "config.toml")];
  const daemon = await startDaemon(argv, socketPath, join(folder, "log"));
  // A container's cgroup lies beneath the name of its namespace.
  const ctr = (...args: readonly string[]): Command => ({ argv: ["ctr", "-a", socketPath, "-n", namespace, ...args] });
  const image = "docker.io/bench/box:1";
  let executions = 0;
  return {
    name: "ctr",
    daemonPid: daemon.pid,
    load: (archive) => void runSync(ctr("images", "import", archive)),
    runOnce: (id, argv) => ctr("run", "--rm", "--cni", image, id, ...argv),
    runDetached: (id, argv) => ctr("run", "-d", "--cni", image, id, ...argv),
    exec: (id, argv) => ctr("task", "exec", "--exec-id", `e${(executions += 1)}`, id, ...argv),
    remove: (ids) => {
      for (const id of ids) runSync(ctr("task", "rm", "-f", id));
      runSync(ctr("container", "rm", ...ids));
    },
    ps: () => ctr("task", "ls"),
    pull: (reference) => ctr("images", "pull", "--plain-http", reference),
    forget: (reference) => {
      runSync(ctr("images", "rm", "--sync", reference));
    },
    stop: () => daemon.stop(),
  };
}
