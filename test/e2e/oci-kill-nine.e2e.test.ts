import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { eventually } from "./eventually.ts";
import { Ground, runtime } from "./oci-bundle.ts";

/** What changes anything outside of the process. */
const changing =
  "mkdir,mkdirat,open,openat,openat2,write,clone,clone3,vfork,mount,rename,renameat,unlink,unlinkat,rmdir,symlinkat,mknodat,execve,socketpair,sendmsg,kill,pidfd_send_signal,fcntl";

/** The `occurrence`-th call of a name. */
interface Step {
  readonly name: string;
  readonly occurrence: number;
}

/**
 * Runs a command under a tracer that kills it at a step; returns the steps it came to, and whether it was killed. Only
 * the one process is traced, whose program changes from ours to the runtime's: its children are not to be waited for.
 */
function runKilledAt(
  on: Ground,
  step: Step | undefined,
  args: readonly string[],
): { readonly steps: readonly Step[]; readonly wasKilled: boolean } {
  const trace = join(on.directory, "trace");
  const inject = step === undefined ? [] : ["-e", `inject=${step.name}:signal=KILL:when=${step.occurrence}`];
  const strace = ["-qq", "-o", trace, "-e", `trace=${changing}`, ...inject];
  const argv = ["-c", '"$@" >/dev/null 2>&1', "sh", "strace", ...strace, runtime, ...on.args(args)];
  // A tracer ends as what it traced.
  const { status } = spawnSync("sh", argv, { stdio: "ignore", timeout: 60_000 });
  const counts = new Map<string, number>();
  const steps = readFileSync(trace, "utf8")
    .split("\n")
    .flatMap((line) => {
      const name = /^(\w+)\(/.exec(line)?.[1];
      if (name === undefined) return [];
      counts.set(name, (counts.get(name) ?? 0) + 1);
      return [{ name, occurrence: counts.get(name) ?? 0 }];
    });
  return { steps, wasKilled: status === 137 };
}

for (const engine of ["crun", "runc"]) {
  for (const command of ["create", "start", "delete"] as const) {
    test(`${engine}: killed between any two steps of ${command}, delete --force takes everything away`, async () => {
      using on = new Ground(["--engine", engine]);
      const bundle = on.bundle("a", ["/bin/sleep", "1000000"]);
      const args = command === "create" ? ["create", "--bundle", bundle, "a"] : [command, "a"];
      const prepare = (): void => {
        if (command !== "create") on.ok(["create", "--bundle", bundle, "a"]);
      };
      prepare();
      const { steps } = runKilledAt(on, undefined, args);
      on.ok(["delete", "--force", "a"]);
      assert.ok(steps.length > 20, `only ${steps.length} steps`);
      // All of them would take minutes: so many, spread evenly.
      const rounds = 12;
      let killed = 0;
      for (let round = 1; round <= rounds; round += 1) {
        prepare();
        const step = steps[Math.ceil((round * steps.length) / rounds) - 1];
        if (runKilledAt(on, step, args).wasKilled) killed += 1;
        on.ok(["delete", "--force", "a"]);
        await eventually(`nothing is left after ${step?.name} ${step?.occurrence}: ${on.traces().join(", ")}`, () => {
          return on.traces().length === 0;
        });
      }
      // It does not come to just as many steps each time: what waits for something asks more or less often.
      assert.ok(killed >= rounds / 2, `only ${killed} of ${rounds} were killed`);
      on.ok(["create", "--bundle", bundle, "a"]);
      assert.equal(on.state("a").status, "created");
    });
  }
}
