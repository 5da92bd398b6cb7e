import { Fault } from "../base/fault.ts";
import { valueOf } from "./command-line.ts";
import { type Bundle, readBundle } from "./config/bundle.ts";
import { decisionFor, type Ground, keptFds } from "./ground.ts";
import { becomeRuntime } from "./namespace/become.ts";
import { prepareContainer } from "./namespace/make.ts";
import { isSuspect, programOf, runSuspect } from "./namespace/suspect.ts";
import { claim } from "./claim.ts";
import { checkId } from "./place.ts";

/** A container is made: which engine serves it is decided here, and everything that cannot be is refused here. */
export async function create(ground: Ground): Promise<number> {
  const { line, place } = ground;
  const id = line.words[0] ?? "";
  checkId(id);
  const bundle = readBundle(valueOf(line.flags, "bundle") ?? ".", valueOf(line.flags, "config"));
  const decision = decisionFor(ground, id, bundle.config);
  ground.log.debug(`${id}: ${decision.target}, because of ${decision.why}`);
  if (decision.target === "microvm") return await makeMicrovm(ground, id, bundle);
  const { name, argv } = await prepareContainer(ground, bundle, decision.target);
  await claim(place, id, ground.handover);
  if (name === "crun" && line.command !== "restore" && isSuspect(bundle.root, bundle.config["process"])) {
    return await runSuspect(ground, argv, programOf(bundle.config["process"]), keptFds(line));
  }
  return becomeRuntime(ground, name, argv);
}

async function makeMicrovm(ground: Ground, id: string, bundle: Bundle): Promise<number> {
  const { line, wiring } = ground;
  if (line.command === "restore") throw new Fault("unsupported", `restore ${id}: a microVM has no checkpoints`);
  if (wiring.maker === undefined) return becomeElsewhere(ground);
  if (line.command === "create") return await (await import("./microvm/make.ts")).createMicrovm(ground, id, bundle);
  const { runMicrovm } = await import("./microvm/run.ts");
  return await runMicrovm(ground, id, bundle);
}

/** The same command again, in a program that can do it. */
export function becomeElsewhere({ wiring, handover, argv, line }: Ground): never {
  const program = wiring.elsewhere?.();
  if (program === undefined) throw new Fault("bug", "nothing makes microVMs here");
  return handover.become([...program, ...argv], process.env, keptFds(line));
}
