import { readFileSync } from "node:fs";
import { backgroundCall } from "../../../base/call.ts";
import { homeBeneath } from "../../../base/home.ts";
import type { ProgramLaunch } from "../../contract.ts";
import type { RuntimeName } from "../../monitor/runtime.ts";
import { MicrovmEngine } from "./engine.ts";

/** A daemon that starts an instance, to be killed while it does: directory of its home, runtime, file with the launch. */
const [directory = "", runtime = "", launchFile = ""] = process.argv.slice(2);
const call = backgroundCall();
const engine = new MicrovmEngine({ home: homeBeneath(directory), runtime: runtime as RuntimeName });
const launch = JSON.parse(readFileSync(launchFile, "utf8")) as ProgramLaunch;
await engine.create(launch, call);
console.log("created");
await engine.start(launch.id, call);
console.log("started");
setInterval(() => {}, 1000);
