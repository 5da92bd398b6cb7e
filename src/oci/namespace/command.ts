import { Fault } from "../../base/fault.ts";
import { exists } from "../../host/door.ts";
import { valueOf } from "../command-line.ts";
import type { Ground } from "../ground.ts";
import { argumentsFor } from "./argument.ts";
import { isHalfMade } from "./half-made.ts";
import { requireProgram, type RuntimeName } from "./program.ts";

/** A command on a container that crun or runc has in `root`: its exit code, or the command line to become. */
export async function runNamespaceCommand(
  ground: Ground,
  name: RuntimeName,
  root: string,
  id: string,
): Promise<number | readonly string[]> {
  const { line, host } = ground;
  if (isHalfMade(root, name, id)) {
    if (line.command !== "delete" || !line.flags.has("force")) {
      throw new Fault("precondition", `${line.command} ${id}: the container was not made to its end`, {
        hint: `delete --force ${id}`,
      });
    }
    (await import("./leftover.ts")).clearHalfMade(root, name, id, host);
    return 0;
  }
  const program = requireProgram(name, host);
  switch (line.command) {
    case "start":
      // crun would speak of a fifo that is not there.
      if (name === "crun" && !exists(`${root}/${id}/exec.fifo`)) {
        throw new Fault("precondition", `start ${id}: the container is not in the state "created"`);
      }
      break;
    case "exec":
      await checkProcess(valueOf(line.flags, "process"), name, program);
      return argumentsFor(name, program, root, line, line.flags);
    case "update":
      return argumentsFor(name, program, root, line, (await import("./checked.ts")).checkedResources(ground, name));
    case "events":
      if (name === "runc") break;
      return (await import("./events.ts")).events(ground, program, root, id);
    case "ps":
      if (name === "runc" || line.words.length === 1 || valueOf(line.flags, "format") === "json") break;
      return (await import("./ps.ts")).showProcesses(ground, program, root, id);
    case "checkpoint":
      (await import("./criu.ts")).requireCriu(`checkpoint ${id}`, name, program);
      break;
    default:
  }
  return argumentsFor(name, program, root, line, line.flags);
}

/** What a file says of the program to be run is refused as `create` would refuse it. */
async function checkProcess(file: string | undefined, name: RuntimeName, program: string): Promise<void> {
  if (file === undefined) return;
  const { processIn } = await import("./checked.ts");
  const process = processIn(file);
  const { unsupportedFields } = await import("./support.ts");
  const unsupported = unsupportedFields(name, program, { process });
  if (unsupported.length > 0) throw new Fault("unsupported", `${file}: ${unsupported.join("; ")}`);
}
