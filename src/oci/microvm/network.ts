import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { Fault } from "../../base/fault.ts";
import { isJson, type Json, own, recordsIn } from "../config/shape.ts";
import type { GuestRoute } from "../../instance/guest.ts";
import type { Nic } from "./contract.ts";

/**
 * A guest takes the place of its caller's network namespace: each interface there gets a tap beside it, what arrives at the
 * one leaves by the other, and the guest's interface has the hardware address, the addresses and the routes. What made
 * the namespace (CNI, netavark, libnetwork) does not notice. The namespace itself no longer hears anything.
 */

export interface Adopted {
  readonly nics: readonly Nic[];
  readonly routes: readonly GuestRoute[];
}

const prefix = "croft-t";

/** Makes taps that `uid` may open, in the namespace that the file names, and joins them to its interfaces. */
export function adoptNetwork(namespace: string, id: string, uid: number): Adopted {
  const links = json(namespace, ["ip", "-j", "-d", "addr", "show"]);
  const names = links.map((link) => String(link["ifname"]));
  const mine = tapNames(id);
  if (names.some((name) => name.startsWith(prefix) && !name.startsWith(mine))) {
    throw new Fault("precondition", `start ${id}: another microVM has this network`, {
      hint: "of the containers of a pod, one can be a microVM",
    });
  }
  const found = links.filter((link) => isAdoptable(link));
  const nics = found.map((link, index): Nic => {
    const addresses = recordsIn(link, "addr_info")
      .filter(({ family, scope }) => family === "inet" || (family === "inet6" && scope === "global"))
      .map(({ local, prefixlen }) => ({ address: String(local), prefixLength: Number(prefixlen) }));
    return {
      name: String(link["ifname"]),
      tap: `${mine}${index}`,
      mac: String(link["address"]),
      mtu: Number(link["mtu"]),
      addresses,
    };
  });
  if (nics.length === 0) return { nics, routes: [] };
  removeTaps(namespace, id);
  batch(
    namespace,
    "ip",
    nics.flatMap(({ tap, mtu }) => [`tuntap add dev ${tap} mode tap user ${uid}`, `link set dev ${tap} mtu ${mtu} up`]),
  );
  batch(
    namespace,
    "tc",
    nics.flatMap(({ name, tap }) => [
      `qdisc replace dev ${name} ingress`,
      `filter replace dev ${name} parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev ${tap}`,
      `qdisc replace dev ${tap} ingress`,
      `filter replace dev ${tap} parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev ${name}`,
    ]),
  );
  return { nics, routes: routesOf(namespace, nics) };
}

/** Gives the namespace its network back. Nothing to do when it is gone. */
export function removeTaps(namespace: string, id: string): void {
  const mine = tapNames(id);
  const { stdout, status } = enter(namespace, ["ip", "-j", "link", "show"]);
  if (status !== 0) return;
  const names = parsedList(stdout).map((link) => String(link["ifname"]));
  const taps = names.filter((name) => name.startsWith(mine));
  if (taps.length === 0) return;
  for (const name of names) {
    if (name !== "lo" && !taps.includes(name)) enter(namespace, ["tc", "qdisc", "del", "dev", name, "ingress"]);
  }
  for (const tap of taps) enter(namespace, ["ip", "link", "del", "dev", tap]);
}

function tapNames(id: string): string {
  return `${prefix}${createHash("sha256").update(id).digest("hex").slice(0, 5)}-`;
}

/** Ethernet that is up and is nobody's tap. */
function isAdoptable(link: Json): boolean {
  const flags = Array.isArray(link["flags"]) ? link["flags"] : [];
  const kind = own(link["linkinfo"], "info_kind");
  return link["link_type"] === "ether" && kind !== "tun" && flags.includes("UP");
}

/** Those that the guest has to be told of, the reachable ones first: a gateway must be reachable before it is named. */
function routesOf(namespace: string, nics: readonly Nic[]): readonly GuestRoute[] {
  const routes = ([4, 6] as const).flatMap((family) =>
    json(namespace, ["ip", "-j", `-${family}`, "route", "show"]).flatMap((route): GuestRoute[] => {
      const nic = nics.findIndex(({ name }) => name === route["dev"]);
      const { dst, gateway, protocol, metric } = route;
      // Those to the own network come with the address.
      if (nic === -1 || protocol === "kernel" || typeof dst !== "string") return [];
      return [
        {
          family,
          destination: dst,
          nic,
          ...(typeof gateway === "string" ? { gateway } : {}),
          ...(typeof metric === "number" ? { metric } : {}),
        },
      ];
    }),
  );
  return routes.toSorted((a, b) => Number(b.gateway === undefined) - Number(a.gateway === undefined));
}

function json(namespace: string, argv: readonly string[]): readonly Json[] {
  const { status, stdout, stderr } = enter(namespace, argv);
  if (status !== 0) throw new Fault("failed", `${argv.join(" ")} in ${namespace}: ${stderr.trim()}`);
  return parsedList(stdout);
}

function parsedList(text: string): readonly Json[] {
  const value: unknown = text.trim() === "" ? [] : JSON.parse(text);
  return Array.isArray(value) ? value.filter(isJson) : [];
}

function batch(namespace: string, program: string, lines: readonly string[]): void {
  const { status, stderr } = enter(namespace, [program, "-batch", "-"], `${lines.join("\n")}\n`);
  if (status !== 0) {
    throw new Fault("failed", `join the network of ${namespace} to a microVM: ${program}: ${stderr.trim()}`);
  }
}

function enter(
  namespace: string,
  argv: readonly string[],
  input = "",
): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const { status, stdout, stderr, error } = spawnSync("nsenter", [`--net=${namespace}`, "--", ...argv], {
    encoding: "utf8",
    input,
    timeout: 20_000,
  });
  if (error !== undefined) throw Fault.from(error, "nsenter");
  return { status, stdout, stderr };
}
