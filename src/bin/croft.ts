import packageFile from "../../package.json" with { type: "json" };
import { main } from "../cli/main.ts";

// Whatever was written is written before the promise of `main` resolves; sockets and timers need not be waited for.
process.exit(await main(process.argv.slice(2), packageFile.version));
