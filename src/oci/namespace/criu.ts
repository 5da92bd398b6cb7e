import { spawnSync } from "node:child_process";
import { Fault } from "../../base/fault.ts";
import type { HostConfig } from "../route.ts";
import { findProgram, type RuntimeName } from "./program.ts";

/** Saving a container's processes and bringing them back is CRIU's work: runc runs it, crun has it built in or has not. */

/** Why this runtime cannot checkpoint or restore here; undefined when it can. */
export function whyNoCriu(name: RuntimeName, program: string): string | undefined {
  if (name === "crun") return /\+CRIU\b/.test(versionOf(program) ?? "") ? undefined : "this crun is built without CRIU";
  return versionOf("criu") === undefined ? "runc needs criu, which is not installed" : undefined;
}

export function requireCriu(attempted: string, name: RuntimeName, program: string): void {
  const why = whyNoCriu(name, program);
  if (why === undefined) return;
  throw new Fault("unsupported", `${attempted}: ${why}`, {
    hint:
      name === "runc"
        ? "install criu, and see with criu check whether it works with this kernel"
        : "use a crun built with it, or the engine runc with criu installed",
  });
}

/** The first runtime that can bring a container back. */
export function anyWithCriu(host: HostConfig): { readonly name: RuntimeName; readonly program: string } {
  const refusals: string[] = [];
  for (const name of ["crun", "runc"] as const) {
    const program = findProgram(name, host);
    const why = program === undefined ? `${name} is not installed` : whyNoCriu(name, program);
    if (program !== undefined && why === undefined) return { name, program };
    refusals.push(why ?? "");
  }
  throw new Fault("unsupported", `restore: ${refusals.join("; ")}`, {
    hint: "install criu, and see with criu check whether it works with this kernel",
  });
}

function versionOf(program: string): string | undefined {
  const { status, stdout } = spawnSync(program, ["--version"], { encoding: "utf8", timeout: 10_000 });
  return status === 0 ? stdout : undefined;
}
