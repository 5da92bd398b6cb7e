import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Progress } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Wake } from "../../base/wake.ts";
import type { RunInstanceRequest, RunInstanceResponseSchema, RunStart } from "../../gen/croft/v1/instance_pb.ts";
import type { Instances, Run, RunRequest } from "../../reconcile/contract.ts";
import { runStack } from "../../reconcile/instances.ts";
import { defaultNetwork, type InstanceKind, type InstanceSection } from "../../stack/model.ts";
import type { ApiCall } from "../handler.ts";
import { progressMessage } from "./operation.ts";
import { converse, delivered, readStart } from "./session.ts";
import { instanceMessage } from "./view.ts";

type Answer = MessageInitShape<typeof RunInstanceResponseSchema>;

/** Progress while the image comes, then the instance, then its output until it ends; detached, the instance alone. */
export async function* runInstance(
  instances: Instances,
  requests: AsyncIterable<RunInstanceRequest>,
  call: ApiCall,
): AsyncGenerator<Answer> {
  const spoken = requests[Symbol.asyncIterator]();
  const start = await readStart(spoken);
  const request = await readRequest(start, call.author);
  const { instance, session } = yield* withProgress((call) => instances.run(request, call), call);
  yield { message: { case: "started", value: instanceMessage(instance) } };
  if (session === undefined) return;
  if (start.terminal !== undefined) await delivered(session.resize(start.terminal.columns, start.terminal.rows));
  // A console takes what is typed whether or not somebody said so.
  yield* converse(session, spoken, { input: start.interactive || instance.section.kind === "vm" }, call);
}

/** Answers with progress until `work` is done. A line that changes faster than it is sent is sent as it was last. */
async function* withProgress(work: (call: ApiCall) => Promise<Run>, call: ApiCall): AsyncGenerator<Answer, Run> {
  const lines = new Map<string, Progress>();
  const news = new Wake();
  let outcome: Promise<Run> | undefined;
  const { author, signal, clock } = call;
  const report = (progress: Progress): void => {
    lines.set(progress.topic, progress);
    news.ring();
  };
  const running = work({ author, signal, clock, report });
  const settle = (): void => {
    outcome = running;
    news.ring();
  };
  running.then(settle, settle);
  for (;;) {
    const [line] = lines.values();
    if (line !== undefined) {
      lines.delete(line.topic);
      yield { message: { case: "progress", value: progressMessage(line) } };
    } else if (outcome !== undefined) {
      return await outcome;
    } else {
      await news.next(signal);
    }
  }
}

/**
 * Lowers the request by the language itself: what `croft run` takes means what the same words mean in a stack file, and
 * is refused in the same words.
 */
async function readRequest(start: RunStart, author: string): Promise<RunRequest> {
  const as = start.as === "" ? "container" : start.as;
  if (as !== "container" && as !== "microvm" && as !== "vm") {
    throw new Fault("unsupported", `this release cannot run a ${as}`, { hint: "write container, microvm or vm" });
  }
  if (start.pull !== "" && start.pull !== "missing" && start.pull !== "always" && start.pull !== "never") {
    throw new Fault("invalid", `pull cannot be ${start.pull}`, { hint: "write missing, always or never" });
  }
  if (start.remove && start.restart !== "" && start.restart !== "never") {
    throw new Fault("invalid", `what is removed when it exits cannot be started again (${start.restart})`, {
      hint: "leave out one of the two: --rm or --restart",
    });
  }
  const section = await readSection(start, as);
  return {
    section,
    pull: start.pull === "" ? "missing" : start.pull,
    remove: start.remove,
    attach: !start.detach,
    author,
    ...(start.name !== "" && { name: start.name }),
  };
}

async function readSection(start: RunStart, as: InstanceKind): Promise<InstanceSection> {
  const name = start.name === "" ? "run" : start.name;
  const { checkStack } = await import("../../stack/check/check.ts");
  const { spec, problems } = checkStack({
    path: "run",
    text: JSON.stringify(as === "vm" ? machineDocument(name, start) : programDocument(name, as, start)),
    folder: "/",
    format: "json",
  });
  const section = spec?.instances[name];
  if (section === undefined) {
    // A run's stack is called as it is: a name that is wrong is wrong once.
    const errors = problems.filter(({ severity, key }) => severity === "error" && key !== "stack");
    throw new Fault("invalid", errors.map(({ message }) => message).join("; "), { hint: errors[0]?.hint ?? "" });
  }
  return {
    ...section,
    // Networks of other stacks are named here, which a stack file cannot.
    networks: start.networks.length > 0 ? start.networks : [`${runStack}/${defaultNetwork}`],
    terminal: as !== "vm" && start.terminal !== undefined,
    stdin: as !== "vm" && start.interactive,
  };
}

/** The stack file that says the same. Zero and empty mean that the client left it out. */
function programDocument(name: string, as: InstanceKind, start: RunStart): object {
  if (start.diskSize !== "" || start.firmware !== "" || start.sshKeys.length > 0) {
    throw new Fault("invalid", `a ${as} has no disks, firmware or ssh keys`, { hint: "run a vm: --as vm" });
  }
  const volumes = start.volumes.map(readVolume);
  const twice = volumes.find(({ source }, at) => volumes.findIndex((known) => known.source === source) < at);
  if (twice !== undefined) {
    throw new Fault("invalid", `${twice.source} is mounted twice`, { hint: "mount it at one place" });
  }
  const named = volumes.filter(({ source }) => !source.startsWith("/"));
  const section = {
    image: start.image,
    env: start.env,
    labels: start.labels,
    publish: start.publish,
    tmpfs: start.tmpfs,
    volumes: Object.fromEntries(volumes.map(({ source, path, readOnly }) => [source, { path, "read-only": readOnly }])),
    "read-only": start.readOnly,
    capabilities: { add: start.capAdd, drop: start.capDrop },
    restart: start.restart === "" ? "never" : start.restart,
    ...(start.command.length > 0 && { command: start.command }),
    ...(start.entrypoint.length > 0 && { entrypoint: start.entrypoint }),
    ...(start.user !== "" && { user: start.user }),
    ...(start.workdir !== "" && { workdir: start.workdir }),
    ...(start.hostname !== "" && { hostname: start.hostname }),
    ...(start.memory !== "" && { memory: start.memory }),
    ...(start.cpus !== "" && { cpus: readCpus(start.cpus) }),
    ...(start.pids !== 0 && { pids: start.pids }),
    ...(start.stopSignal !== "" && { "stop-signal": start.stopSignal }),
    ...(start.stopGrace !== "" && { "stop-grace": start.stopGrace }),
  };
  return {
    stack: name,
    volume: Object.fromEntries(named.map(({ source }) => [source, {}])),
    [as]: { [name]: section },
  };
}

/** As written, so that what means nothing for a machine is refused by the language, by name. */
function machineDocument(name: string, start: RunStart): object {
  const { image, diskSize, entrypoint, command, user, workdir, env, labels, publish, tmpfs, volumes } = start;
  const section = {
    disk: diskSize === "" ? image : { image, size: diskSize },
    restart: start.restart === "" ? "never" : start.restart,
    ...some({ labels, env }, (value) => Object.keys(value).length > 0),
    ...some({ publish, tmpfs, volumes, entrypoint, command, "ssh-keys": start.sshKeys }, (value) => value.length > 0),
    ...some(
      {
        user,
        workdir,
        hostname: start.hostname,
        memory: start.memory,
        firmware: start.firmware,
        "stop-signal": start.stopSignal,
        "stop-grace": start.stopGrace,
      },
      (value) => value !== "",
    ),
    ...(start.cpus !== "" && { cpus: readCpus(start.cpus) }),
    ...(start.pids !== 0 && { pids: start.pids }),
    ...(start.readOnly && { "read-only": true }),
    ...(start.capAdd.length + start.capDrop.length > 0 && { capabilities: {} }),
  };
  return { stack: name, vm: { [name]: section } };
}

function some<Value>(values: Readonly<Record<string, Value>>, isSaid: (value: Value) => boolean): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => isSaid(value)));
}

/** `name:/path`, `/host/path:/path`, either with `:ro`. */
function readVolume(text: string): { readonly source: string; readonly path: string; readonly readOnly: boolean } {
  const [source = "", path = "", mode = "rw", ...more] = text.split(":");
  if (source === "" || path === "" || more.length > 0 || (mode !== "ro" && mode !== "rw")) {
    throw new Fault("invalid", `"${text}" is not a volume`, {
      hint: "write name:/path or /host/path:/path, and :ro to only read",
    });
  }
  if (/^[^/.][^/]*\/./.test(source)) {
    throw new Fault("invalid", `${source} is neither a volume of a run nor a path`, {
      hint: `write ./${source} for a folder here; a volume of a stack is mounted by its path, which croft volume ls shows`,
    });
  }
  return { source, path, readOnly: mode === "ro" };
}

function readCpus(text: string): number {
  const cpus = Number(text);
  if (!Number.isFinite(cpus))
    throw new Fault("invalid", `"${text}" is not a number of cores`, { hint: "write one such as 1.5" });
  return cpus;
}
