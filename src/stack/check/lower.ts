import { posix } from "node:path";
import { instanceDefaults } from "../default.ts";
import { defaultNetwork } from "../model.ts";
import type {
  EnvValue,
  ImageSection,
  InstanceSection,
  MountSection,
  NetworkSection,
  SecretSection,
  StackSpec,
  VolumeSection,
} from "../model.ts";
import type { Sections } from "./document.ts";
import { lowerHealth } from "./lower-health.ts";
import { lowerMachine, lowerMicrovm } from "./lower-guest.ts";
import { isBind } from "./mount.ts";
import type { ImageInput, InstanceInput, NetworkInput, SecretInput, VolumeInput } from "./shape.ts";

/** The values that env files of each section give, by the section's name. */
export type EnvFiles = ReadonlyMap<string, ReadonlyMap<string, string>>;

/** Fills in every default. Only for sections without errors. `folder` is where the file lies: binds begin there. */
export function lower(stack: string, sections: Sections, folder: string, envFiles: EnvFiles): StackSpec {
  const lowerProgram = (section: InstanceInput, name: string): InstanceSection =>
    lowerInstance(section, folder, envFiles.get(name) ?? new Map());
  const instances = {
    ...mapSections(sections.container, lowerProgram),
    ...mapSections(sections.microvm, (section, name) => lowerMicrovm(section, lowerProgram(section, name))),
    ...mapSections(sections.vm, lowerMachine),
  };
  const networks = mapSections(sections.network, lowerNetwork);
  const usesDefault = Object.values(instances).some((instance) => instance.networks.includes(defaultNetwork));
  return {
    stack,
    networks:
      usesDefault && !sections.network.has(defaultNetwork)
        ? { [defaultNetwork]: { internal: false }, ...networks }
        : networks,
    volumes: mapSections(sections.volume, lowerVolume),
    secrets: mapSections(sections.secret, lowerSecret),
    images: mapSections(sections.image, lowerImage),
    instances,
  };
}

function mapSections<Input, Section>(
  sections: ReadonlyMap<string, Input>,
  lowerOne: (section: Input, name: string) => Section,
): Record<string, Section> {
  return Object.fromEntries([...sections].map(([name, section]) => [name, lowerOne(section, name)]));
}

function lowerNetwork({ subnet, internal }: NetworkInput): NetworkSection {
  return { ...(subnet === undefined ? {} : { subnet }), internal: internal ?? false };
}

function lowerVolume({ size, protect }: VolumeInput): VolumeSection {
  return { ...(size === undefined ? {} : { sizeBytes: size }), protect: protect ?? false };
}

function lowerSecret({ generate, file, env }: SecretInput): SecretSection {
  return generate ?? file ?? env ?? { source: "generate", length: 32 };
}

function lowerImage(image: ImageInput): ImageSection {
  const { from = "scratch", packages = [], files = {}, env = {}, command, entrypoint, user, workdir } = image;
  return {
    from,
    packages,
    files,
    env,
    ...(command === undefined ? {} : { command }),
    ...(entrypoint === undefined ? {} : { entrypoint }),
    ...(user === undefined ? {} : { user }),
    ...(workdir === undefined ? {} : { workdir }),
  };
}

function lowerInstance(input: InstanceInput, folder: string, fileEnv: ReadonlyMap<string, string>): InstanceSection {
  const { command, entrypoint, user, workdir, hostname, cpus, memory, pids } = input;
  const fromFiles = [...fileEnv].map(([name, value]): [string, EnvValue] => [name, { value }]);
  const stopSignal = input["stop-signal"];
  return {
    ...instanceDefaults,
    image: input.image ?? "scratch",
    env: { ...Object.fromEntries(fromFiles), ...input.env },
    mounts: lowerMounts(input, folder),
    networks: input.networks ?? instanceDefaults.networks,
    publish: input.publish ?? [],
    restart: input.restart ?? instanceDefaults.restart,
    needs: input.needs ?? [],
    replicas: input.replicas ?? instanceDefaults.replicas,
    stopGraceMs: input["stop-grace"] ?? instanceDefaults.stopGraceMs,
    readOnly: input["read-only"] ?? false,
    capabilities: {
      add: (input.capabilities?.add ?? []).toSorted(),
      drop: (input.capabilities?.drop ?? []).toSorted(),
    },
    labels: input.labels ?? {},
    protect: input.protect ?? false,
    log: { maxBytes: input.log?.["max-size"] ?? instanceDefaults.log.maxBytes },
    update: {
      order: input.update?.order ?? instanceDefaults.update.order,
      healthyWithinMs: input.update?.["healthy-within"] ?? instanceDefaults.update.healthyWithinMs,
    },
    ...(command === undefined ? {} : { command }),
    ...(entrypoint === undefined ? {} : { entrypoint }),
    ...(user === undefined ? {} : { user }),
    ...(workdir === undefined ? {} : { workdir }),
    ...(hostname === undefined ? {} : { hostname }),
    ...(cpus === undefined ? {} : { cpus }),
    ...(memory === undefined ? {} : { memoryBytes: memory }),
    ...(pids === undefined ? {} : { pids }),
    ...(input.health === undefined ? {} : { health: lowerHealth(input.health) }),
    ...(stopSignal === undefined ? {} : { stopSignal }),
  };
}

/** Sorted by destination, so that a mount comes before those beneath it, and the order in the file changes nothing. */
function lowerMounts(input: InstanceInput, folder: string): readonly MountSection[] {
  const mounts: MountSection[] = [];
  for (const [key, { path, readOnly }] of Object.entries(input.volumes ?? {})) {
    mounts.push(
      isBind(key)
        ? { kind: "bind", source: trimSlash(posix.resolve(folder, key)), destination: path, readOnly }
        : { kind: "volume", volume: key, destination: path, readOnly },
    );
  }
  for (const [destination, { path, secret, mode }] of Object.entries(input.files ?? {})) {
    if (secret !== undefined) mounts.push({ kind: "secret", secret, destination, mode: mode ?? 0o400 });
    else if (path !== undefined)
      mounts.push({ kind: "file", path, destination, ...(mode === undefined ? {} : { mode }) });
  }
  for (const { path, sizeBytes } of input.tmpfs ?? []) {
    mounts.push({ kind: "tmpfs", destination: path, ...(sizeBytes === undefined ? {} : { sizeBytes }) });
  }
  return mounts.toSorted((left, right) => (left.destination < right.destination ? -1 : 1));
}

function trimSlash(path: string): string {
  return path.length > 1 ? path.replace(/\/+$/, "") : path;
}
