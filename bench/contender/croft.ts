import { fileURLToPath } from "node:url";
import { TestDaemon } from "../../test/e2e/daemon.ts";
import { type Command, runSync } from "../process.ts";
import type { Contender } from "./contender.ts";

/** The compiled command line. */
export const croftProgram = fileURLToPath(new URL("../../dist/croft", import.meta.url));

/** Us: a daemon with a fresh root, and the compiled command line. */
export async function startCroft(): Promise<Contender> {
  let daemon = await TestDaemon.start();
  const croft = (...args: readonly string[]): Command => ({
    argv: [croftProgram, ...args],
    env: { CROFT_ROOT: daemon.root },
  });
  return {
    name: "croft",
    get daemonPid() {
      return daemon.pid;
    },
    load: (archive) => void runSync(croft("image", "load", "-i", archive)),
    runOnce: (id, argv) => croft("run", "--rm", "--name", id, "bench/box:1", ...argv),
    runDetached: (id, argv) => croft("run", "-d", "--name", id, "bench/box:1", ...argv),
    exec: (id, argv) => croft("exec", id, ...argv),
    remove: (ids) => void runSync(croft("rm", "-f", ...ids)),
    ps: () => croft("ps"),
    get api() {
      return { socketPath: daemon.socketPath, path: "/v1/instances" };
    },
    pull: (reference) => croft("image", "pull", reference),
    // A fresh root is the one way to be sure that nothing was there.
    forget: async () => {
      await daemon[Symbol.asyncDispose]();
      daemon = await TestDaemon.start();
    },
    stop: () => daemon[Symbol.asyncDispose](),
  };
}
