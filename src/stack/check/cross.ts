import { closest } from "../../base/closest.ts";
import { defaultNetwork } from "../model.ts";
import type { PublishSection } from "../model.ts";
import { findCycle } from "./cycle.ts";
import type { Sections } from "./document.ts";
import { overlap, parseNetwork } from "./ipv4.ts";
import { checkMounts } from "./mount.ts";
import type { Report } from "./problem.ts";
import type { InstanceInput } from "./shape.ts";
import { suggest } from "./suggest.ts";
import { checkSecretName, Usage } from "./usage.ts";

/** Everything that is wrong, or odd, between fields and sections. Looks at what could be read, whatever else is wrong. */
export function checkAcross(report: Report, sections: Sections): void {
  const used = new Usage();
  for (const [name, instance] of sections.container) {
    checkNames(report, sections, name, instance, used);
    checkMounts(report, sections, name, instance, used);
    checkNetworking(report, sections, name, instance);
    checkRisks(report, name, instance);
  }
  checkNeeds(report, sections);
  checkInstanceNames(report, sections);
  checkPorts(report, sections);
  checkSubnets(report, sections);
  checkImages(report, sections, used);
  // Beside errors, "unused" is mostly a misspelling that is told already.
  if (!report.hasErrors) checkUnused(report, sections, used);
}

function checkNames(report: Report, sections: Sections, name: string, instance: InstanceInput, used: Usage): void {
  const path = ["container", name] as const;
  for (const [index, network] of (instance.networks ?? []).entries()) {
    used.network.add(network);
    const at = [...path, "networks", index];
    if (instance.networks?.indexOf(network) !== index) {
      report.error(at, `the network "${network}" is named twice`, "remove one of the two");
    } else if (network !== defaultNetwork && !sections.network.has(network)) {
      report.error(at, `there is no network "${network}"`, networkHint(sections, network));
    }
  }
  if (instance.networks === undefined) used.network.add(defaultNetwork);
  for (const [variable, value] of Object.entries(instance.env ?? {})) {
    if ("secret" in value) checkSecretName(report, sections, [...path, "env", variable, "secret"], value.secret, used);
  }
  const { image } = instance;
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

function checkNetworking(report: Report, sections: Sections, name: string, instance: InstanceInput): void {
  const path = ["container", name] as const;
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

function checkRisks(report: Report, name: string, instance: InstanceInput): void {
  const path = ["container", name] as const;
  for (const [index, capability] of (instance.capabilities?.add ?? []).entries()) {
    if (!["ALL", "SYS_ADMIN", "SYS_MODULE"].includes(capability)) continue;
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
  const names = [...sections.container.keys()];
  const edges = new Map<string, readonly string[]>();
  for (const [name, { needs = [] }] of sections.container) {
    edges.set(
      name,
      needs.filter((needed) => sections.container.has(needed)),
    );
    for (const [index, needed] of needs.entries()) {
      if (!sections.container.has(needed)) {
        report.error(
          ["container", name, "needs", index],
          `there is no container "${needed}"`,
          suggest(
            needed,
            names.filter((other) => other !== name),
            `declare it as [container.${needed}], or take it out`,
          ),
        );
      } else if (needs.indexOf(needed) !== index) {
        report.error(["container", name, "needs", index], `"${needed}" is named twice`, "remove one of the two");
      }
    }
  }
  for (const cycle of findCycle(edges)) {
    report.error(
      ["container", cycle[0] ?? "", "needs"],
      `these need each other, so none could start first: ${cycle.join(" → ")}`,
      "take one of these out of needs; a program can also wait for another by itself",
    );
  }
}

/** Replicas are reached as `web-1`, `web-2`: another section must not have that very name. */
function checkInstanceNames(report: Report, sections: Sections): void {
  for (const name of sections.container.keys()) {
    const match = /^(.+)-([1-9][0-9]*)$/.exec(name);
    const [, base = "", ordinal = ""] = match ?? [];
    const other = sections.container.get(base);
    if (other === undefined || Number(ordinal) > (other.replicas ?? 1)) continue;
    report.error(
      ["container", name],
      `"${name}" is already the name of a replica of "${base}"`,
      "choose another name",
      "key",
    );
  }
}

interface Claim {
  readonly port: PublishSection;
  readonly holder: string;
}

function checkPorts(report: Report, sections: Sections): void {
  const claims = new Map<string, Claim[]>();
  for (const [name, { publish = [] }] of sections.container) {
    for (const [index, port] of publish.entries()) {
      const key = `${port.hostPort}/${port.protocol}`;
      const earlier = claims.get(key) ?? [];
      const clash = earlier.find((claim) => meet(claim.port.hostAddress, port.hostAddress));
      if (clash !== undefined) {
        const who = clash.holder === name ? "an entry before this one" : `container "${clash.holder}"`;
        report.error(
          ["container", name, "publish", index],
          `port ${key} of the host is already published by ${who}`,
          "choose another port of the host",
        );
      }
      claims.set(key, [...earlier, { port, holder: name }]);
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
