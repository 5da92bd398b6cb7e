import { writeSync } from "node:fs";
import { resolve } from "node:path";
import { Fault } from "../../base/fault.ts";
import { valueOf } from "../command-line.ts";
import { type Bundle, refused } from "../config/bundle.ts";
import { withVersion } from "../config/version.ts";
import type { Ground } from "../ground.ts";
import { engineRoot } from "../place.ts";
import type { Target } from "../route.ts";
import { argumentsFor } from "./argument.ts";
import { chooseRuntime } from "./probe.ts";
import { requireProgram, type RuntimeName } from "./program.ts";
import { unsupportedFields } from "./support.ts";

/** Versions that every crun takes; it refuses those that are younger than itself, though it does what they ask for. */
const oldVersion = /^1\.0\./;
const versionForAll = "1.0.2";

export interface Prepared {
  readonly name: RuntimeName;
  readonly argv: readonly string[];
}

/** The runtime's command line that makes this container. Nothing has been created so far. */
export async function prepareContainer(ground: Ground, bundle: Bundle, target: Target): Promise<Prepared> {
  const { line, place, handover } = ground;
  const { name, program } = line.command === "restore" ? await runtimeWithCriu(ground, target) : chosen(ground, target);
  const unsupported = unsupportedFields(name, program, bundle.config);
  if (unsupported.length > 0) throw new Fault("unsupported", refused(bundle.configFile, unsupported).message);
  const flags = new Map(line.flags);
  flags.set("bundle", [resolve(valueOf(line.flags, "bundle") ?? ".")]);
  // The runtime would look for a relative one elsewhere than we did.
  if (flags.has("config")) flags.set("config", [bundle.configFile]);
  if (name === "crun" && line.command !== "restore" && !oldVersion.test(String(bundle.config["ociVersion"]))) {
    const { fd, path } = handover.memoryFile("config.json");
    const bytes = Buffer.from(withVersion(bundle.text, versionForAll));
    for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written);
    flags.set("config", [path]);
  }
  return { name, argv: argumentsFor(name, program, engineRoot(place, name), line, flags) };
}

function chosen({ host, place }: Ground, target: Target): { name: RuntimeName; program: string } {
  if (target === "crun" || target === "runc") return { name: target, program: requireProgram(target, host) };
  return chooseRuntime(host, place);
}

/** A snapshot can only be brought back by a runtime that can talk to CRIU. */
async function runtimeWithCriu(
  { host }: Ground,
  target: Target,
): Promise<{ readonly name: RuntimeName; readonly program: string }> {
  const { anyWithCriu, requireCriu } = await import("./criu.ts");
  if (target !== "crun" && target !== "runc") return anyWithCriu(host);
  const program = requireProgram(target, host);
  requireCriu("restore", target, program);
  return { name: target, program };
}
