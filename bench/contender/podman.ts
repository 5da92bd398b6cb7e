import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, runSync } from "../process.ts";
import { bridgeConfig } from "./cni.ts";
import type { Contender } from "./contender.ts";

/** Podman asks for more open files and processes than a confined root may have, so it is told what there is. */
const ulimits = ["nofile=1024:1024", "nproc=4096:4096"];

export function startPodman(folder: string, cgroup: string): Contender {
  mkdirSync(join(folder, "cni"), { recursive: true });
  const storage = `[storage]\ndriver = "overlay"\ngraphroot = "${folder}/root"\nrunroot = "${folder}/run"\n`;
  const engine = `[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n`;
  const network = `[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/usr/lib/cni"]\nnetwork_config_dir = "${folder}/cni"\n`;
  const limits = `[containers]\ndefault_ulimits = ${JSON.stringify(ulimits)}\n`;
  writeFileSync(join(folder, "storage.conf"), storage);
  writeFileSync(join(folder, "containers.conf"), engine + network + limits);
  writeFileSync(join(folder, "registries.conf"), `[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n`);
  writeFileSync(join(folder, "cni", "87-podman.conflist"), bridgeConfig("podman", "cni-podman0", "10.88.0.0/16"));
  const podman = (...args: readonly string[]): Command => ({
    argv: ["podman", ...args],
    env: {
      CONTAINERS_STORAGE_CONF: join(folder, "storage.conf"),
      CONTAINERS_CONF: join(folder, "containers.conf"),
      CONTAINERS_REGISTRIES_CONF: join(folder, "registries.conf"),
    },
  });
  const own = ["--cgroup-parent", `/${cgroup}`];
  return {
    name: "podman",
    load: (archive) => void runSync(podman("load", "-q", "-i", archive)),
    runOnce: (id, argv) => podman("run", "--rm", ...own, "--name", id, "bench/box:1", ...argv),
    runDetached: (id, argv) => podman("run", "-d", ...own, "--name", id, "bench/box:1", ...argv),
    exec: (id, argv) => podman("exec", id, ...argv),
    remove: (ids) => void runSync(podman("rm", "-f", "-t", "0", ...ids)),
    ps: () => podman("ps"),
    pull: (reference) => podman("pull", "-q", "--tls-verify=false", reference),
    forget: (reference) => {
      runSync(podman("rmi", "-f", reference));
    },
    stop: () => Promise.resolve(),
  };
}
