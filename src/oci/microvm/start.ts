import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { backgroundCall } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { lockId } from "../claim.ts";
import { isJson, type Json } from "../config/shape.ts";
import type { Ground } from "../ground.ts";
import { requireProgram } from "../namespace/program.ts";
import { engineRoot } from "../place.ts";
import { shared } from "./contract.ts";
import { runHooks } from "./hook.ts";
import { placeOf } from "./make.ts";
import { adoptNetwork } from "./network.ts";
import { machineFiles, readRecord } from "./record.ts";

/**
 * Lets the machine boot and its program run, and returns when it does. What fails from then on ends the machine. Of several
 * at once one is let in: the others would take away what it gave the machine, and end it.
 */
export async function startMicrovm(ground: Ground, id: string): Promise<number> {
  const { place, host, wiring, log } = ground;
  if (!lockId(place, id, ground.handover))
    throw new Fault("precondition", `start ${id}: another process makes or starts it`);
  const crun = [requireProgram("crun", host), "--root", engineRoot(place, "microvm")];
  const state = stateOf(crun, id);
  if (state["status"] !== "created") {
    throw new Fault("precondition", `start ${id}: the container is not in the state "created"`);
  }
  if (wiring.maker === undefined) throw new Fault("bug", "microVMs are started elsewhere");
  const files = machineFiles(place, id);
  const record = readRecord(files);
  const maker = await wiring.maker({ ...host, microvm: record.host });
  const call = backgroundCall();
  const parts = await maker.prepare(call);
  const pid = Number(state["pid"]);
  const { nics, routes } = adoptNetwork(`/proc/${pid}/ns/net`, id, files.uid);
  const { launch } = record;
  const settings = { ...record.settings, network: { nics, routes } };
  const where = placeOf(files, record.cgroup);
  let isLetGo = false;
  try {
    const plan = maker.equip(
      launch,
      parts,
      where,
      nics.map(({ tap }) => tap),
    );
    writeFileSync(join(files.shared, shared.plan), JSON.stringify(plan), { mode: 0o644 });
    runCrun([...crun, "start", id]);
    isLetGo = true;
    const isAlive = (): boolean => existsSync(`/proc/${pid}`) && !isZombie(pid);
    await maker.handOver(launch, parts, where, settings, isAlive, call);
  } catch (error) {
    const kill = [...crun.slice(1), "kill", id, "KILL"];
    if (isLetGo) spawnSync(crun[0] ?? "", kill, { stdio: "ignore", timeout: 20_000 });
    throw error;
  }
  runHooks(record.poststart, { ...state, status: "running" }, log);
  return 0;
}

export function stateOf(crun: readonly string[], id: string): Json {
  const { stdout } = runCrun([...crun, "state", id]);
  const state: unknown = JSON.parse(stdout);
  return isJson(state) ? state : {};
}

function runCrun(argv: readonly string[]): { readonly stdout: string } {
  const [program = "", ...args] = argv;
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8", timeout: 60_000 });
  if (status !== 0) throw new Fault("failed", error?.message ?? (stderr.trim() || `${program} ended with ${status}`));
  return { stdout };
}

export function isZombie(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat[stat.lastIndexOf(")") + 2] === "Z";
  } catch {
    return true;
  }
}
