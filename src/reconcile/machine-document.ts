import { Fault } from "../base/fault.ts";
import { checkStack } from "../stack/check/check.ts";
import type { InstanceSection } from "../stack/model.ts";
import { machineOf } from "./machine-launch.ts";

/**
 * A machine in the words of the language, without what ties it to a place: networks, ports, devices of the host, files
 * beside a stack file. Its disks are named, and what is on them comes with them.
 */
export function machineDocument(section: InstanceSection): Readonly<Record<string, unknown>> {
  const { firmware, tpm, hugepages, balloon, cpuModel, topology, disks } = machineOf(section);
  const { cpus, memoryBytes, hostname, restart, stopGraceMs, labels, log } = section;
  return {
    firmware,
    tpm,
    hugepages,
    balloon,
    cpus,
    memory: `${memoryBytes ?? 0}B`,
    boot: disks.filter(({ from }) => from.kind !== "iso").map(({ name }) => name),
    restart,
    "stop-grace": `${stopGraceMs}ms`,
    labels,
    log: { "max-size": `${log.maxBytes}B` },
    ...(cpuModel === undefined ? {} : { "cpu-model": cpuModel }),
    ...(topology === undefined ? {} : { topology }),
    ...(hostname === undefined ? {} : { hostname }),
  };
}

/**
 * The section that such words mean, with these disk images for its disks. It is read as a stack file is: the words may
 * come from anybody. Throws `corrupt` when they are none.
 */
export function sectionOf(
  name: string,
  document: unknown,
  images: ReadonlyMap<string, string>,
  networks: readonly string[],
): InstanceSection {
  const { root, ...others } = Object.fromEntries([...images].map(([disk, image]) => [disk, { image }]));
  if (root === undefined) throw new Fault("corrupt", "the machine has no disk called root");
  const words = typeof document === "object" && document !== null ? document : {};
  const text = JSON.stringify({ stack: name, vm: { [name]: { ...words, disk: root, disks: others } } });
  const { spec, problems } = checkStack({ path: "machine", text, folder: "/", format: "json" });
  const section = spec?.instances[name];
  if (section === undefined) {
    const errors = problems.filter(({ severity }) => severity === "error");
    throw new Fault("corrupt", `this is no machine: ${errors.map(({ message }) => message).join("; ")}`);
  }
  // Networks of other stacks are named here, which a stack file cannot.
  return { ...section, networks };
}
