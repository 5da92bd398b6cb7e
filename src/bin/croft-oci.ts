import { writeSync } from "node:fs";
import packageFile from "../../package.json" with { type: "json" };

// Callers ask for the version before each container, so it is answered before anything else is loaded.
const argv = process.argv.slice(2);
if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-v")) {
  writeSync(1, `croft-oci version ${packageFile.version}\nspec: 1.2.0\n`);
  process.exit(0);
}
const { main } = await import("../oci/main.ts");
process.exit(await main(argv, packageFile.version));
