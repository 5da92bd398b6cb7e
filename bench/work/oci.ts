import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { busybox, type PeerName } from "../contender/contender.ts";
import { type Command, runSync, timeMs } from "../process.ts";
import { type Figures, median, rowOf } from "../row.ts";
import type { Ground, Work } from "./ground.ts";

const runtime = fileURLToPath(new URL("../../dist/croft-oci", import.meta.url));

/** The runtime that callers use as they use crun and runc, beside these. */
export const oci: Work = {
  name: "oci",
  measure: async (ground) => [
    rowOf("croft-oci --version", "ms", version(ground), [{ sense: "at most", factor: 20 }]),
    rowOf("create, start, delete a container", "ms", life(ground), [
      { sense: "at most", factor: 1, of: "crun", plus: 45 },
      { sense: "at most", factor: 1, of: "runc" },
    ]),
    rowOf("podman run --rm, with it and with crun", "ms", underPodman(ground), [
      { sense: "at most", factor: 1.25, of: "podman" },
    ]),
  ],
};

type Name = "croft" | PeerName;

/** One after the other, round after round; the first of each fills caches and is not counted. */
function inTurns(names: readonly Name[], rounds: number, measure: (name: Name, round: number) => number): Figures {
  const figures = new Map<Name, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round <= rounds; round += 1) {
    for (const name of names) {
      const figure = measure(name, round);
      if (round > 0) figures.get(name)?.push(figure);
    }
  }
  return new Map([...figures].map(([name, values]) => [name, median(values)] as const));
}

function programOf(name: Name): string {
  return name === "croft" ? runtime : name;
}

function version({ rounds }: Ground): Figures {
  return inTurns(["croft", "crun", "runc"], rounds, (name) => timeMs({ argv: [programOf(name), "--version"] }));
}

function life({ folder, rounds }: Ground): Figures {
  const bundle = makeBundle(join(folder, "oci"), folder.slice(folder.lastIndexOf("/") + 1));
  return inTurns(["croft", "crun", "runc"], rounds, (name, round) => {
    const runtime = (...args: readonly string[]): Command => ({
      argv: [programOf(name), "--root", join(folder, "oci", name), ...args],
    });
    const id = `life-${round}`;
    return (
      timeMs(quiet(runtime("create", "--bundle", bundle, id))) +
      timeMs(quiet(runtime("start", id))) +
      timeMs(quiet(runtime("delete", "--force", id)))
    );
  });
}

/** What is created keeps its standard streams, and nobody waits for the end of those. */
function quiet({ argv }: Command): Command {
  return { argv: ["sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", ...argv] };
}

function makeBundle(folder: string, cgroup: string): string {
  const root = join(folder, "bundle", "rootfs");
  for (const name of ["bin", "proc", "dev", "sys"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync("/bin/busybox", join(root, "bin", "busybox"));
  const file = join(folder, "bundle", "config.json");
  runSync({ argv: ["runc", "spec", "--bundle", join(folder, "bundle")] });
  const spec = JSON.parse(readFileSync(file, "utf8")) as { process: object; linux: object };
  const config = {
    ...spec,
    process: { ...spec.process, args: [busybox, "sleep", "1000"], terminal: false },
    linux: { ...spec.linux, cgroupsPath: `/${cgroup}/oci` },
  };
  writeFileSync(file, JSON.stringify(config));
  return join(folder, "bundle");
}

function underPodman({ contenders, rounds }: Ground): Figures {
  const podman = contenders.find(({ name }) => name === "podman");
  if (podman === undefined) return new Map();
  return inTurns(["croft", "podman"], rounds, (name, round) => {
    const { argv, env } = podman.runOnce(`oci-${name}-${round}`, [busybox, "true"]);
    const [program = "", ...args] = argv;
    const command = [program, "--runtime", name === "croft" ? runtime : "/usr/bin/crun", ...args];
    return timeMs({ argv: command, ...(env === undefined ? {} : { env }) });
  });
}
