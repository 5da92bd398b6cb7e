import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, runSync } from "../process.ts";
import type { Contender } from "./contender.ts";

/** The runtime alone, with a new network namespace and no address in it: what is left when all else costs nothing. */
export function startCrun(folder: string, cgroup: string): Contender {
  const root = join(folder, "root");
  mkdirSync(join(root, "bin"), { recursive: true });
  for (const name of ["proc", "dev", "sys"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync("/bin/busybox", join(root, "bin", "busybox"));
  runSync({ argv: ["crun", "spec", "--bundle", folder] });
  const spec = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as {
    process: object;
    root: object;
    linux: object;
  };
  const crun = (...args: readonly string[]): Command => ({ argv: ["crun", "--root", join(folder, "state"), ...args] });
  const run = (id: string, argv: readonly string[], ...flags: readonly string[]): Command => {
    const bundle = join(folder, "bundle", id);
    mkdirSync(bundle, { recursive: true });
    const config = {
      ...spec,
      process: { ...spec.process, args: argv, terminal: false },
      root: { path: root, readonly: true },
      linux: { ...spec.linux, cgroupsPath: `/${cgroup}/${id}` },
    };
    writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
    return crun("--cgroup-manager=cgroupfs", "run", ...flags, "--bundle", bundle, id);
  };
  return {
    name: "crun",
    load: () => {},
    runOnce: (id, argv) => run(id, argv),
    runDetached: (id, argv) => run(id, argv, "-d"),
    exec: (id, argv) => crun("exec", id, ...argv),
    remove: (ids) => {
      for (const id of ids) runSync(crun("delete", "-f", id));
    },
    stop: () => Promise.resolve(),
  };
}
