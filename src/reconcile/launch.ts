import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { Image } from "../image/contract.ts";
import type { ProgramLaunch, LaunchMount } from "../instance/contract.ts";
import type { Attachment } from "../network/contract.ts";
import type { AttachedVolume, Root } from "../storage/contract.ts";
import type { MountSection } from "../stack/model.ts";
import type { DesiredInstance } from "../stack/plan/step.ts";
import type { Secret } from "../secret/secret.ts";
import type { Secrets } from "../secret/contract.ts";
import type { SubmittedFiles } from "./parts.ts";

/** What the drivers handed back for one instance. */
export interface Attached {
  readonly root: Root;
  readonly attachment: Attachment;
  /** By volume name as the section writes it. */
  readonly volumes: ReadonlyMap<string, AttachedVolume>;
}

/** Puts together what an engine needs: image defaults under the section's own words, secrets and files filled in. */
export async function launchOf(
  stack: string,
  instance: DesiredInstance,
  image: Image,
  attached: Attached,
  sources: { readonly files: SubmittedFiles; readonly secrets: Secrets },
  call: Call,
): Promise<ProgramLaunch> {
  const { section } = instance;
  const read = async (name: string): Promise<Secret> => {
    const version = instance.secrets[name];
    if (version === undefined) throw new Fault("bug", `secret ${name} of ${instance.id} has no version`);
    return await sources.secrets.resolve(stack, name, version, call);
  };
  const env: Record<string, string> = { ...image.config.env };
  for (const [name, value] of Object.entries(section.env)) {
    env[name] = "value" in value ? value.value : (await read(value.secret)).revealText();
  }
  const mounts: LaunchMount[] = [];
  for (const mount of section.mounts)
    mounts.push(...(await mountsOf(mount, instance, attached, sources.files, read, call)));
  return {
    kind: "program",
    id: instance.id,
    root: attached.root,
    attachment: attached.attachment,
    hostname: section.hostname ?? displayName(instance),
    argv: argvOf(instance, image),
    env,
    user: section.user ?? image.config.user,
    workdir: section.workdir ?? (image.config.workdir === "" ? "/" : image.config.workdir),
    terminal: section.terminal,
    stdin: section.stdin,
    readOnlyRoot: section.readOnly,
    mounts,
    capabilities: section.capabilities,
    limits: limitsOf(instance),
    stopSignal: section.stopSignal ?? image.config.stopSignal ?? "SIGTERM",
    log: section.log,
    labels: section.labels,
    ...(section.kernelPath === undefined ? {} : { kernelPath: section.kernelPath }),
    ...(section.warmStart === undefined ? {} : { warmStart: section.warmStart }),
  };
}

/** As docker has it: an entrypoint of the section's own also drops the image's command. */
export function argvOf(instance: DesiredInstance, image: Image): readonly string[] {
  const { section } = instance;
  const entrypoint = section.entrypoint ?? image.config.entrypoint;
  const command = section.command ?? (section.entrypoint === undefined ? image.config.command : []);
  const argv = [...entrypoint, ...command];
  if (argv.length === 0) {
    throw new Fault("invalid", `${instance.id}: neither the image nor the section says what to run`, {
      hint: `give container.${instance.name} a command, such as command = ["/bin/sh", "-c", "…"]`,
    });
  }
  return argv;
}

export function limitsOf(instance: DesiredInstance): ProgramLaunch["limits"] {
  const { cpus, memoryBytes, pids } = instance.section;
  return {
    ...(cpus === undefined ? {} : { cpus }),
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
    ...(pids === undefined ? {} : { pids }),
  };
}

/** `web`, or `web-2` when the section asks for several. */
export function displayName(instance: Pick<DesiredInstance, "name" | "ordinal" | "section">): string {
  return instance.section.replicas === 1 ? instance.name : `${instance.name}-${instance.ordinal}`;
}

/** Names an instance answers to: its own, its section's, and both with the stack behind them. */
export function namesOf(
  stack: string,
  instance: Pick<DesiredInstance, "name" | "ordinal" | "section">,
): readonly string[] {
  const own = displayName(instance);
  const names = new Set([
    `${instance.name}-${instance.ordinal}`,
    own,
    instance.name,
    `${instance.name}.${stack}`,
    `${own}.${stack}`,
  ]);
  return [...names];
}

async function mountsOf(
  mount: MountSection,
  instance: DesiredInstance,
  attached: Attached,
  files: SubmittedFiles,
  read: (secret: string) => Promise<Secret>,
  call: Call,
): Promise<readonly LaunchMount[]> {
  const { destination } = mount;
  switch (mount.kind) {
    case "bind":
      return [{ kind: "bind", source: mount.source, destination, readOnly: mount.readOnly }];
    case "tmpfs":
      return [{ kind: "tmpfs", destination, ...(mount.sizeBytes === undefined ? {} : { sizeBytes: mount.sizeBytes }) }];
    case "secret":
      return [
        { kind: "file", destination, content: (await read(mount.secret)).reveal(), mode: mount.mode, secret: true },
      ];
    case "volume": {
      const volume = attached.volumes.get(mount.volume);
      if (volume === undefined) throw new Fault("bug", `volume ${mount.volume} of ${instance.id} is not attached`);
      return [{ kind: "bind", source: volume.path, destination, readOnly: mount.readOnly }];
    }
    case "file": {
      const digest = instance.files[mount.path];
      if (digest === undefined) throw new Fault("bug", `file ${mount.path} of ${instance.id} was not submitted`);
      return (await files.read(digest, call)).map((file) => ({
        kind: "file",
        destination: file.path === "." ? destination : `${destination.replace(/\/$/, "")}/${file.path}`,
        content: file.content,
        mode: mount.mode ?? file.mode,
        secret: false,
      }));
    }
  }
}
