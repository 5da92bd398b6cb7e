import packageFile from "../../package.json" with { type: "json" };
import type { Wiring } from "../oci/ground.ts";

// Callers ask for the version before each container, so it is answered before anything else is loaded.
const argv = process.argv.slice(2);
if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-v")) {
  console.log(`croft-oci version ${packageFile.version}\nspec: 1.2.0`);
  process.exit(0);
}
// What we are inside of the container around a microVM.
if (argv[0] === "--watch-machine") {
  const { watchMachine } = await import("../oci/microvm/watcher.ts");
  process.exit(await watchMachine());
}
if (argv[0] === "--relay-program") {
  const { relayProgram } = await import("../oci/microvm/relay.ts");
  process.exit(await relayProgram());
}

/** Where Croft is installed: beside the compiled program, or around this source. */
function checkout(): string {
  const { realpathSync } = process.getBuiltinModule("node:fs");
  const { dirname, join } = process.getBuiltinModule("node:path");
  const own =
    process.versions["bun"] === undefined ? join(import.meta.dirname, "..") : dirname(realpathSync(process.execPath));
  return dirname(own);
}

const wiring: Wiring = {
  elsewhere: () => {
    const { existsSync, realpathSync } = process.getBuiltinModule("node:fs");
    const { join } = process.getBuiltinModule("node:path");
    const root = checkout();
    process.env["CROFT_OCI_PROGRAM"] = join(root, "dist", "croft-oci");
    // Keeps the sources compiled: without it each start takes some hundred milliseconds longer.
    process.env["NODE_COMPILE_CACHE"] ??= join(root, "node_modules", ".cache", "compiled");
    const own = join(root, "node_modules", ".bin", "node");
    const node = existsSync(own) ? realpathSync(own) : "/usr/bin/node";
    return [node, "--disable-warning=ExperimentalWarning", join(root, "src", "bin", "croft-oci-machine.ts")];
  },
  execScript: async () => (await import("../instance/qemu/guest/launch.ts")).execCommand,
};
const { main } = await import("../oci/main.ts");
process.exit(await main(argv, packageFile.version, wiring));
