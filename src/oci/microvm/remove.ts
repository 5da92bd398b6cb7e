import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { CommandLine } from "../command-line.ts";
import { isJson } from "../config/shape.ts";
import type { Ground } from "../ground.ts";
import { argumentsFor } from "../namespace/argument.ts";
import { directoriesOf, pidsIn, removeGroup } from "../namespace/group.ts";
import { isHalfMade } from "../namespace/half-made.ts";
import { clearHalfMade } from "../namespace/leftover.ts";
import { requireProgram } from "../namespace/program.ts";
import { engineRoot } from "../place.ts";
import { type MachineFiles, machineFiles, readRecord } from "./record.ts";
import { removeTaps } from "./network.ts";

/** Removes the container around the machine as crun does it, and then what served the machine. */
export function removeMachine(ground: Ground, id: string): number {
  const { line, place, host } = ground;
  const root = engineRoot(place, "microvm");
  const files = machineFiles(place, id);
  const isForced = line.flags.has("force");
  if (isHalfMade(root, "crun", id)) {
    if (!isForced) {
      throw new Fault("precondition", `delete ${id}: the container was not made to its end`, {
        hint: `delete --force ${id}`,
      });
    }
    clearHalfMade(root, "crun", id, host);
  } else if (existsSync(join(root, id))) {
    const [program = "", ...args] = argumentsFor("crun", requireProgram("crun", host), root, line, line.flags);
    const { status } = spawnSync(program, args, { stdio: "inherit", timeout: 60_000 });
    if (status !== 0) return status ?? 1;
  }
  clearMachine(files, id);
  return 0;
}

/** As `delete --force` does it, in the midst of another command. */
export function removeByForce(ground: Ground, id: string): number {
  const line: CommandLine = { ...ground.line, command: "delete", flags: new Map([["force", [true]]]), words: [id] };
  return removeMachine({ ...ground, line }, id);
}

/** Whatever is there of it. Nothing runs in the container any more. */
export function clearMachine(files: MachineFiles, id: string): void {
  if (!existsSync(files.directory)) return;
  endServers(files);
  try {
    const { network, cgroup } = readRecord(files);
    if (network !== undefined && existsSync(network)) removeTaps(network, id);
    for (const group of directoriesOf(`${cgroup}.volumes`)) {
      for (const pid of pidsIn(group)) kill(pid);
      for (let tries = 0; tries < 50 && pidsIn(group).length > 0; tries += 1) pause(20);
      removeGroup(group);
    }
  } catch {
    // It did not come so far as to have a record: then it has no network and no group either.
  }
  rmSync(files.directory, { recursive: true, force: true });
}

/** Those who serve its directories end when QEMU does; one whose QEMU never came is ended here. */
function endServers(files: MachineFiles): void {
  try {
    const served: unknown = JSON.parse(readFileSync(join(files.directory, "volumes.json"), "utf8"));
    for (const server of Array.isArray(served) ? served.filter(isJson) : []) {
      const pid = Number(server["pid"]);
      if (startTicksOf(pid) === server["startTicks"]) kill(pid);
    }
  } catch {
    // Nothing was served.
  }
}

function startTicksOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  } catch {
    return undefined;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone.
  }
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
