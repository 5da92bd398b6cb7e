import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errnoOf, hostFault } from "../../host/errno.ts";
import { bind, unmount } from "../../host/mount.ts";
import type { Layout } from "./layout.ts";
import type { Runtime } from "./runtime.ts";

/** By this crun tells the copy of itself that it is one. */
const isCopy = "_LIBCONTAINER_CLONED_BINARY";

/**
 * What runs in a container could write to crun's own file, by `/proc/self/exe` of the crun that enters it (CVE-2019-5736).
 * So crun, each time, mounts itself read-only and executes itself from there: some 4 ms, more than all the rest it does for
 * an exec. Here the same mount is made once and stays. crun sees that it lies on one and goes on at once.
 *
 * Made anew when a package brought another crun. Without crun the runtime is returned as it is: who starts it says so.
 */
export async function shielded(runtime: Runtime, layout: Layout): Promise<Runtime> {
  if (runtime.name !== "crun") return runtime;
  const shield = shieldPath(layout);
  const installed = fileAt(runtime.program);
  if (installed === undefined) return runtime;
  if (fileAt(shield) !== installed) {
    // Without a pause between the two: whoever comes meanwhile finds the old one or the new one.
    const left = unmount(shield, { detach: true });
    writeFileSync(shield, "", { flag: "a", mode: 0o600 });
    const made = bind(runtime.program, shield, { readOnly: true });
    await Promise.all([left, made]);
  }
  return { ...runtime, program: shield, env: { [isCopy]: "1" } };
}

export function shieldPath(layout: Layout): string {
  return join(layout.runDir, "crun");
}

/** Which file it is: a bind mount is the same one as its source. */
function fileAt(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw hostFault(error, `look at ${path}`);
  }
}
