import { closest } from "../../base/closest.ts";
import { defaultNetwork } from "../model.ts";
import type { PublishSection } from "../model.ts";
import { findCycle } from "./cycle.ts";
import type { Sections } from "./document.ts";
import { instancesOf, machinesOf, programsOf, type Written } from "./instance.ts";
import { overlap, parseNetwork } from "./ipv4.ts";
import { checkMachine } from "./machine.ts";
import { checkMounts } from "./mount.ts";
import type { Report } from "./problem.ts";
import type { InstanceInput } from "./shape.ts";
import { suggest } from "./suggest.ts";
import { checkSecretName, Usage } from "./usage.ts";

/** Everything that is wrong, or odd, between fields and sections. Looks at what could be read, whatever else is wrong. */
export function checkAcross(report: Report, sections: Sections): void {
  const used = new Usage();
  for (const program of programsOf(sections)) {
    checkImage(report, sections, program, used);
    checkEnv(report, sections, program, used);
    checkMounts(report, sections, program, used);
    checkRisks(report, program);
  }
  for (const machine of machinesOf(sections)) checkMachine(report, sections, machine, used);
  for (const instance of instancesOf(sections)) {
    checkNetworks(report, sections, instance, used);
    checkNetworking(report, sections, instance);
  }
  checkNeeds(report, sections);
  checkInstanceNames(report, sections);
  checkPorts(report, sections);
  checkSubnets(report, sections);
  checkImages(report, sections, used);
  // Beside errors, "unused" is mostly a misspelling that is told already.
  if (!report.hasErrors) checkUnused(report, sections, used);
}

function checkNetworks(report: Report, sections: Sections, { path, input }: Written, used: Usage): void {
  const { networks } = input;
  for (const [index, network] of (networks ?? []).entries()) {
    used.network.add(network);
    const at = [...path, "networks", index];
    if (networks?.indexOf(network) !== index) {
      report.error(at, `the network "${network}" is named twice`, "remove one of the two");
    } else if (network !== defaultNetwork && !sections.network.has(network)) {
      report.error(at, `there is no network "${network}"`, networkHint(sections, network));
    }
  }
  if (networks === undefined) used.network.add(defaultNetwork);
}

function checkEnv(report: Report, sections: Sections, { path, input }: Written<InstanceInput>, used: Usage): void {
  for (const [variable, value] of Object.entries(input.env ?? {})) {
    if ("secret" in value) checkSecretName(report, sections, [...path, "env", variable, "secret"], value.secret, used);
  }
}

function checkImage(report: Report, sections: Sections, { path, input }: Written<InstanceInput>, used: Usage): void {
  const { image } = input;
  if (image === undefined) return;
  used.image.add(image);
  const near = sections.image.has(image) || /[/:]/.test(image) ? undefined : closest(image, sections.image.keys());
  if (near !== undefined) {
    report.warn(
      [...path, "image"],
      `"${image}" is not an image of this file, so it would be pulled`,
      `did you mean "${near}"?`,
    );
  }
}

function networkHint(sections: Sections, network: string): string {
  if (network === "host") return "Croft does not lend the host's network; publish ports instead";
  const near = closest(network, [...sections.network.keys(), defaultNetwork]);
  const declare = `declare it as [network.${network}]`;
  return near === undefined ? declare : `did you mean "${near}"? If not, ${declare}`;
}

function checkNetworking(report: Report, sections: Sections, { path, input: instance }: Written): void {
  const networks = instance.networks ?? [defaultNetwork];
  if (networks.length === 0) {
    const check =
      instance.health?.http === undefined ? (instance.health?.tcp === undefined ? undefined : "tcp") : "http";
    if (check !== undefined) {
      report.error(
        [...path, "health"],
        `a ${check} check cannot reach an instance without networks`,
        "give it a network, or check with exec",
      );
    }
    if ((instance.publish ?? []).length > 0) {
      report.error(
        [...path, "publish"],
        "an instance without networks cannot publish ports",
        'give it a network: networks = ["default"]',
      );
    }
  } else if (
    (instance.publish ?? []).length > 0 &&
    networks.every((network) => sections.network.get(network)?.internal === true)
  ) {
    report.error(
      [...path, "publish"],
      "all networks of this instance are internal, so its ports cannot be reached from outside",
      `add a network that is not: networks = [${[...networks, defaultNetwork].map((network) => `"${network}"`).join(", ")}]`,
    );
  }
}

function checkRisks(report: Report, { kind, path, input: instance }: Written<InstanceInput>): void {
  for (const [index, capability] of (instance.capabilities?.add ?? []).entries()) {
    // Beside a kernel of its own it is nobody's risk but the guest's.
    if (kind !== "container" || !["ALL", "SYS_ADMIN", "SYS_MODULE"].includes(capability)) continue;
    report.warn(
      [...path, "capabilities", "add", index],
      `${capability} is nearly as much as being root on the host`,
      "add only what the program needs, such as NET_ADMIN",
    );
  }
  if (instance.entrypoint !== undefined && instance.entrypoint.length === 0 && instance.command?.length === 0) {
    report.error(
      [...path, "command"],
      "with an empty entrypoint and an empty command there is nothing to run",
      "say what to run in command",
    );
  }
}

function checkNeeds(report: Report, sections: Sections): void {
  const instances = new Map(instancesOf(sections).map((instance) => [instance.name, instance]));
  const edges = new Map<string, readonly string[]>();
  for (const { name, path, kind, input } of instances.values()) {
    const { needs = [] } = input;
    edges.set(
      name,
      needs.filter((needed) => instances.has(needed)),
    );
    for (const [index, needed] of needs.entries()) {
      const at = [...path, "needs", index];
      if (!instances.has(needed)) {
        const others = [...instances.keys()].filter((other) => other !== name);
        const declare = `declare it as [${kind}.${needed}], or take it out`;
        report.error(at, `there is no instance "${needed}"`, suggest(needed, others, declare));
      } else if (needs.indexOf(needed) !== index) {
        report.error(at, `"${needed}" is named twice`, "remove one of the two");
      }
    }
  }
  for (const cycle of findCycle(edges)) {
    report.error(
      [...(instances.get(cycle[0] ?? "")?.path ?? []), "needs"],
      `these need each other, so none could start first: ${cycle.join(" → ")}`,
      "take one of these out of needs; a program can also wait for another by itself",
    );
  }
}

/**
 * Sections of all kinds share one space of names, in which others find them. Replicas are reached as `web-1`, `web-2`:
 * another section must not have that very name.
 */
function checkInstanceNames(report: Report, sections: Sections): void {
  const first = new Map<string, Written>();
  for (const instance of instancesOf(sections)) {
    const { name, kind, path } = instance;
    const same = first.get(name);
    if (same === undefined) first.set(name, instance);
    else report.error(path, `"${name}" is a ${same.kind} already`, `give the ${kind} another name`, "key");
  }
  for (const { name, path } of first.values()) {
    const match = /^(.+)-([1-9][0-9]*)$/.exec(name);
    const [, base = "", ordinal = ""] = match ?? [];
    const other = first.get(base);
    if (other === undefined || Number(ordinal) > (other.input.replicas ?? 1)) continue;
    report.error(path, `"${name}" is already the name of a replica of "${base}"`, "choose another name", "key");
  }
}

interface Claim {
  readonly port: PublishSection;
  readonly holder: Written;
}

function checkPorts(report: Report, sections: Sections): void {
  const claims = new Map<string, Claim[]>();
  for (const instance of instancesOf(sections)) {
    for (const [index, port] of (instance.input.publish ?? []).entries()) {
      const key = `${port.hostPort}/${port.protocol}`;
      const earlier = claims.get(key) ?? [];
      const clash = earlier.find((claim) => meet(claim.port.hostAddress, port.hostAddress));
      if (clash !== undefined) {
        const { holder } = clash;
        const who = holder === instance ? "an entry before this one" : `${holder.kind} "${holder.name}"`;
        report.error(
          [...instance.path, "publish", index],
          `port ${key} of the host is already published by ${who}`,
          "choose another port of the host",
        );
      }
      claims.set(key, [...earlier, { port, holder: instance }]);
    }
  }
}

function meet(left: string, right: string): boolean {
  return left === right || left === "0.0.0.0" || right === "0.0.0.0";
}

function checkSubnets(report: Report, sections: Sections): void {
  const known: { name: string; network: ReturnType<typeof parseNetwork> }[] = [];
  for (const [name, { subnet }] of sections.network) {
    if (subnet === undefined) continue;
    const network = parseNetwork(subnet);
    const clash = known.find(
      (other) => !("wrong" in network) && !("wrong" in other.network) && overlap(network, other.network),
    );
    if (clash !== undefined) {
      report.error(
        ["network", name, "subnet"],
        `${subnet} overlaps the subnet of network "${clash.name}"`,
        "choose one that does not, or leave it out",
      );
    }
    known.push({ name, network });
  }
}

function checkImages(report: Report, sections: Sections, used: Usage): void {
  const edges = new Map<string, readonly string[]>();
  for (const [name, image] of sections.image) {
    const { from } = image;
    if (from === undefined) continue;
    edges.set(name, sections.image.has(from) ? [from] : []);
    if (from !== name) used.image.add(from);
  }
  for (const cycle of findCycle(edges)) {
    report.error(
      ["image", cycle[0] ?? "", "from"],
      `these images are built upon each other: ${cycle.join(" → ")}`,
      'build one of them upon another image, such as "debian:bookworm"',
    );
  }
}

function checkUnused(report: Report, sections: Sections, used: Usage): void {
  const warn = (noun: "network" | "volume" | "secret" | "image", name: string): void =>
    report.warn([noun, name], `nothing uses the ${noun} "${name}"`, "remove it, or name it where it is needed", "key");
  for (const noun of ["network", "volume", "secret", "image"] as const) {
    for (const name of sections[noun].keys()) if (!used[noun].has(name)) warn(noun, name);
  }
}
