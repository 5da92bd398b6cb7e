import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { backgroundCall } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { valueOf } from "../command-line.ts";
import { type Bundle, refused } from "../config/bundle.ts";
import { isJson, own, recordsIn } from "../config/shape.ts";
import { type Ground, keptFds } from "../ground.ts";
import { argumentsFor } from "../namespace/argument.ts";
import { requireProgram } from "../namespace/program.ts";
import { unsupportedFields } from "../namespace/support.ts";
import { claim } from "../claim.ts";
import { engineRoot } from "../place.ts";
import type { HostConfig } from "../route.ts";
import type { MachineMaker, MachineParts, MachinePlace } from "./contract.ts";
import { launchOf } from "./launch.ts";
import { type MachineFiles, machineFiles, makeMachineFiles, writeRecord } from "./record.ts";
import { removeByForce } from "./remove.ts";
import { hostResources, withHostResources } from "./resource.ts";

/**
 * Creates the container around the machine; the exit code is crun's. Refused before anything is there: what it cannot be.
 * crun is a child of ours, because nothing of the machine may stay when it fails.
 */
export async function createMicrovm(ground: Ground, id: string, bundle: Bundle): Promise<number> {
  const { line, place, host, wiring, handover } = ground;
  const { launch, settings } = launchOf(id, bundle);
  if (launch.terminal && valueOf(line.flags, "console-socket") === undefined) {
    throw new Fault("invalid", `${line.command} ${id}: process.terminal: a microVM's terminal needs --console-socket`);
  }
  const kept = keptFds(line);
  if (kept > 0) throw new Fault("unsupported", `${line.command} ${id}: a microVM cannot be handed ${kept} descriptors`);
  const program = requireProgram("crun", host);
  const resources = own(own(bundle.config, "linux"), "resources");
  const unsupported = unsupportedFields("crun", program, { linux: { resources } });
  if (unsupported.length > 0) throw new Fault("unsupported", refused(bundle.configFile, unsupported).message);
  if (wiring.maker === undefined) throw new Fault("bug", "microVMs are made elsewhere");
  const maker = await wiring.maker(host);
  const parts = await maker.prepare(backgroundCall());
  await claim(place, id, handover);
  const files = machineFiles(place, id);
  try {
    const configFile = writeMachine(files, bundle, { launch, settings, maker, parts, host });
    const flags = new Map(line.flags);
    flags.delete("detach");
    flags.set("bundle", [resolve(valueOf(line.flags, "bundle") ?? ".")]);
    flags.set("config", [configFile]);
    const root = engineRoot(place, "microvm");
    const argv = argumentsFor("crun", program, root, { ...line, command: "create" }, flags);
    handover.restoreLimits();
    // Killed with us, as when we had become it: a create that goes on by itself would come after `delete --force`.
    const { status, error } = spawnSync("setpriv", ["--pdeathsig", "KILL", ...argv], { stdio: "inherit" });
    if (error !== undefined) throw Fault.from(error, `run ${program}`);
    if (status !== 0) removeByForce(ground, id);
    return status ?? 1;
  } catch (error) {
    removeByForce(ground, id);
    throw error;
  }
}

interface Machine extends Pick<ReturnType<typeof launchOf>, "launch" | "settings"> {
  readonly maker: MachineMaker;
  readonly parts: MachineParts;
  readonly host: HostConfig;
}

/** Writes what `start` will need, and crun's configuration, whose path is returned. */
function writeMachine(files: MachineFiles, bundle: Bundle, machine: Machine): string {
  const { launch, settings, maker, parts, host } = machine;
  const { id } = launch;
  makeMachineFiles(files);
  const linux = own(bundle.config, "linux");
  const cgroupsPath = own(linux, "cgroupsPath");
  const cgroup = typeof cgroupsPath === "string" && cgroupsPath !== "" ? cgroupsPath : `/croft-oci-${id}`;
  const network = recordsIn(linux, "namespaces").find(({ type }) => type === "network")?.["path"];
  const hooks = own(bundle.config, "hooks");
  writeRecord(files, {
    launch,
    settings,
    cgroup: cgroup.includes(":") ? `/croft-oci-${id}` : cgroup,
    host: host.microvm,
    poststart: recordsIn(hooks, "poststart"),
    ...(typeof network === "string" ? { network } : {}),
  });
  const made = maker.containerConfig(launch, parts, placeOf(files, cgroup));
  const configFile = join(files.directory, "config.json");
  writeFileSync(configFile, JSON.stringify(combined(made, bundle, network)), { mode: 0o600 });
  return configFile;
}

export function placeOf(files: MachineFiles, cgroup: string): MachinePlace {
  return { directory: files.directory, shared: files.shared, cgroup, program: watcherProgram(), uid: files.uid };
}

/** The compiled program, which needs nothing that the container around QEMU does not have. */
function watcherProgram(): string {
  const program = process.env["CROFT_OCI_PROGRAM"] ?? join(import.meta.dirname, "../../../dist/croft-oci");
  if (!existsSync(program)) {
    throw new Fault("unsupported", `${program} is not there, and microVMs need it`, { hint: "npm start compiles it" });
  }
  return program;
}

const terminals = {
  destination: "/dev/pts",
  type: "devpts",
  source: "devpts",
  options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
};

/** The container around QEMU, with what of the caller's concerns the container: terminal, network, hooks, annotations, limits. */
function combined(made: object, { config }: Bundle, network: unknown): object {
  const process = own(made, "process");
  const linux = own(made, "linux");
  const hooks = own(config, "hooks");
  const kept = ["prestart", "createRuntime", "poststop"].flatMap((kind) => {
    const list = recordsIn(hooks, kind);
    return list.length === 0 ? [] : [[kind, list]];
  });
  const consoleSize = own(own(config, "process"), "consoleSize");
  return {
    ...made,
    process: {
      ...(isJson(process) ? process : {}),
      terminal: own(own(config, "process"), "terminal") === true,
      ...(consoleSize === undefined ? {} : { consoleSize }),
    },
    ...(kept.length === 0 ? {} : { hooks: Object.fromEntries(kept) as object }),
    ...(own(config, "annotations") === undefined ? {} : { annotations: own(config, "annotations") }),
    // For the terminals that crun makes for the watcher and for relays.
    mounts: [...recordsIn(made, "mounts"), terminals],
    linux: {
      ...(isJson(linux) ? linux : {}),
      resources: withHostResources(own(linux, "resources"), hostResources(own(own(config, "linux"), "resources"))),
      namespaces: ["pid", "ipc", "uts", "mount", "network"].map((type) =>
        type === "network" && typeof network === "string" ? { type, path: network } : { type },
      ),
    },
  };
}
