import { Fault } from "../../base/fault.ts";
import { factsOf, isExecutable } from "../../host/door.ts";
import type { HostConfig } from "../route.ts";

/** The runtimes for namespace containers. */
export type RuntimeName = "crun" | "runc";

const places = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"];

/** Where the program is; undefined when it is not installed. Never ourselves, under whatever name we were installed. */
export function findProgram(name: RuntimeName, { programs }: HostConfig): string | undefined {
  const said = programs[name];
  const candidates = said === undefined ? places.map((place) => `${place}/${name}`) : [said];
  const own = factsOf("/proc/self/exe")?.identity;
  return candidates.find((path) => isExecutable(path) && factsOf(path)?.identity !== own);
}

export function requireProgram(name: RuntimeName, config: HostConfig): string {
  const program = findProgram(name, config);
  if (program !== undefined) return program;
  throw new Fault("unsupported", `${name} is not installed`, { hint: `apt-get install ${name}` });
}
