import { isIP } from "node:net";
import { posix } from "node:path";
import { Fault } from "../../../base/fault.ts";
import type { ExecSpec, LaunchMount, Limits, ProgramLaunch } from "../../contract.ts";
import { type GuestNetwork, type GuestSettings, limitUnits, type ProcessSettings } from "../../guest.ts";
import { ociCapabilities, resolveCapabilities } from "../../monitor/capability.ts";
import { commandLine, quote } from "./quote.ts";

/** A launch as a guest is told of it: whoever makes it has looked which of its binds are of single files. */
export type GuestLaunch = Omit<ProgramLaunch, "mounts"> & { readonly mounts: readonly GuestMount[] };

/** `shared-file`: served in a directory that holds nothing but it, called `sharedFileName`. */
export type GuestMount =
  | LaunchMount
  | {
      readonly kind: "shared-file";
      readonly source: string;
      readonly destination: string;
      readonly readOnly: boolean;
    };

export const sharedFileName = "file";

/** How a launch reaches its guest: over a port, into its memory, never by a disk. See `script/guest.sh`. */
export function launchMessage(launch: GuestLaunch, surroundings: Surroundings): Buffer {
  const { lines, files } = describe(launch, surroundings);
  return Buffer.concat([Buffer.from(`launch\n${scriptText(lines)}.\n`), ...files]);
}

/** A line that is a dot alone would end it; only within quotes is there one, where it can be written in another way. */
function scriptText(lines: readonly string[]): string {
  return withoutDots(lines.map((line) => `${line}\n`).join(""));
}

function withoutDots(text: string): string {
  return text.replaceAll(/^\.$/gm, "'.'");
}

/** What of a launch the host decides. */
export interface Surroundings {
  /** Seconds since the Unix epoch. */
  readonly nowSeconds: number;
  /** Of a caller that says more than a launch does. */
  readonly settings?: GuestSettings;
}

/** Names that a shell would take for itself, or that change how programs are loaded: these go by `env`. */
const plainName =
  /^(?!_c_|LD_|IFS$|OPT|PS[0-9]$|PPID$|LINENO$|PWD$|OLDPWD$|SHLVL$|_$|RANDOM$|ENV$|MAIL)[A-Za-z_][A-Za-z0-9_]*$/;

/** No file that is handed over is larger. */
const maxFileBytes = 16 * 2 ** 20;

function describe(launch: GuestLaunch, around: Surroundings): { lines: string[]; files: Uint8Array[] } {
  const files: Uint8Array[] = [];
  const receive = (content: Uint8Array, path: string): string => {
    if (content.length > maxFileBytes) {
      throw new Fault("invalid", `${launch.id}: a file of more than ${maxFileBytes} bytes is handed over`);
    }
    files.push(content);
    return `take ${content.length} ${quote(path)} || return`;
  };
  const mounts = mountLines(launch);
  // All that comes is taken first: what follows may not fail halfway for want of it.
  const taken = [
    ...launch.mounts.flatMap((mount, index) => {
      if (mount.kind !== "file") return [];
      const path = `/run/file/${index}`;
      return ["mkdir -p /run/file", receive(mount.content, path), `chmod ${mount.mode.toString(8)} ${path}`];
    }),
    ...(mounts.length === 0 ? [] : [receive(Buffer.from(mounts.join("")), "/run/launch-mounts")]),
  ];
  const { settings } = around;
  const program = [
    ...environmentLines(programEnvironment(launch, settings?.process)),
    ...umaskLines(settings?.process),
    `${launch.terminal ? "on_terminal " : ""}enter 3 ${enterWords(launch, {}, launch.argv, settings?.process)}`,
  ];
  const lines = [
    ...taken,
    `swiftly "date -s @${Math.round(around.nowSeconds)} >/dev/null"`,
    "reseed",
    ...networkLines(settings?.network ?? networkOf(launch)),
    nameLine(launch),
    ...kernelLines(settings?.kernel ?? {}),
    limitLine(launch.limits),
    ...(launch.root.kind === "directory" || launch.mounts.some(isServed) ? ["load_volumes"] : []),
    `assemble ${rootWord(launch, settings)} || return`,
    ...(mounts.length === 0 ? [] : ["mount_inside || return"]),
    usualLine(launch, settings),
    `program_text=${quote(withoutDots(program.join("\n")))}`,
    `begin ${streams(launch)}`,
  ];
  return { lines, files };
}

/** The tag of the directory that is mounted by the entry at that place in the launch. */
export function volumeTag(index: number): string {
  return `volume${index}`;
}

function isServed({ kind }: GuestMount): boolean {
  return kind === "bind" || kind === "shared-file";
}

/** The tag of a root that is a directory. */
export const rootTag = "root";

/** Where what is written to the root goes. A caller with settings brings the files in /etc, too. */
function rootWord({ root }: GuestLaunch, settings: GuestSettings | undefined): string {
  if (root.kind === "directory") return settings === undefined ? "share" : "bundle";
  return root.writable === undefined ? "memory" : "disk";
}

/** Says whether the program runs as most do: as root, with the usual rights, and an environment of plain names. */
function usualLine(launch: GuestLaunch, settings: GuestSettings | undefined): string {
  const { add, drop } = launch.capabilities;
  const isRoot = ["", "0", "root", "0:0", "root:root"].includes(launch.user);
  const isPlain = Object.keys(programEnvironment(launch)).every((name) => plainName.test(name));
  const isUsual =
    settings === undefined && isRoot && isPlain && add.length === 0 && drop.length === 0 && !launch.terminal;
  return `usual=${isUsual ? "yes" : "no"} usual_directory=${quote(launch.workdir === "" ? "/" : launch.workdir)}`;
}

/** bytes and pids, as the guest's `limit` takes them. */
export function limitLine({ memoryBytes, pids }: Limits): string {
  return `limit ${memoryBytes ?? "max"} ${pids ?? "max"}`;
}

function streams(launch: GuestLaunch): string {
  // By the name that the program itself would open, so that what asks for its terminal's name finds it.
  if (launch.terminal) return "/image/dev/hvc0 /image/dev/hvc0 /image/dev/hvc0";
  return `${launch.stdin ? '"${port}4"' : "/dev/null"} /run/out /run/err`;
}

function networkOf({ id, attachment }: GuestLaunch): GuestNetwork {
  if (attachment.kind !== "tap") throw new Fault("bug", `${id}: a microVM takes taps`);
  const { taps, gateway } = attachment;
  return {
    nics: taps.map(({ mac, address, prefixLength }) => ({ mac, addresses: [{ address, prefixLength }] })),
    routes: gateway === undefined ? [] : [{ family: 4, destination: "default", gateway }],
  };
}

function networkLines({ nics, routes }: GuestNetwork): string[] {
  const interfaces = nics.flatMap(({ mac, mtu, addresses }, index) => {
    if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) throw new Fault("bug", `${mac} is not a hardware address`);
    const name = `eth${index}`;
    const size = mtu === undefined ? [] : [`swiftly ip link set ${name} mtu ${numberWord(mtu)}`];
    const words = addresses.map(
      ({ address, prefixLength }) => ` ${addressWord(address, isIP(address))}/${numberWord(prefixLength)}`,
    );
    return [`nic ${name} ${mac}${words.join("")}`, ...size];
  });
  const ways = routes.map(({ family, destination, gateway, nic, metric }) => {
    const via = gateway === undefined ? "" : ` via ${addressWord(gateway, family)}`;
    const device = nic === undefined ? "" : ` dev eth${numberWord(nic)}`;
    const cost = metric === undefined ? "" : ` metric ${numberWord(metric)}`;
    return `swiftly ip${family === 6 ? " -6" : ""} route add ${destinationWord(destination, family)}${via}${device}${cost}`;
  });
  return [...interfaces, ...ways];
}

function addressWord(address: string, family: number): string {
  // An address may carry the name of an interface after a percent sign.
  if (family === 0 || isIP(address) !== family || address.includes("%")) {
    throw new Fault("bug", `${address} is not an address`);
  }
  return address;
}

function destinationWord(destination: string, family: 4 | 6): string {
  if (destination === "default") return destination;
  const [address = "", length] = destination.split("/");
  return `${addressWord(address, family)}${length === undefined ? "" : `/${numberWord(Number(length))}`}`;
}

function numberWord(value: number): string {
  if (!Number.isSafeInteger(value) || value < 0) throw new Fault("bug", `${value} is not a number of a network`);
  return String(value);
}

function kernelLines(settings: GuestSettings["kernel"]): string[] {
  return Object.entries(settings).map(([path, value]) => `kernel_setting ${commandLine([path, value])} || return`);
}

function nameLine({ hostname, attachment }: GuestLaunch): string {
  return `name ${commandLine([hostname, ...attachment.resolvers])}`;
}

/** Done inside the root, where links of the image lead nowhere else. Outer ones first. */
function mountLines(launch: GuestLaunch): string[] {
  const ordered = launch.mounts
    .map((mount, index) => ({ mount, index }))
    .sort((left, right) => depth(left.mount.destination) - depth(right.mount.destination));
  const lines = ordered.map(({ mount, index }) => {
    const place = quote(mount.destination);
    if (mount.kind === "tmpfs") {
      const size = mount.sizeBytes === undefined ? "" : `,size=${mount.sizeBytes}`;
      const mode = (mount.mode ?? 0o1777).toString(8);
      return `place ${place} && mount -t tmpfs -o nosuid,nodev,mode=${mode}${size} tmpfs ${place}`;
    }
    if (mount.kind === "file") return `place_file ${place} && bind_read_only /proc/1/root/run/file/${index} ${place}`;
    if (mount.kind === "shared-file") {
      return `place_file ${place} && bind_shared ${volumeTag(index)} ${sharedFileName} ${place}`;
    }
    const options = `nosuid,nodev${mount.readOnly ? ",ro" : ""}`;
    return `place ${place} && mount -t virtiofs -o ${options} ${volumeTag(index)} ${place}`;
  });
  const seal = launch.readOnlyRoot ? ["mount -o remount,ro /"] : [];
  return [...lines, ...seal].map((line) => `${line} || failed ${quote(line)}\n`);
}

function depth(path: string): number {
  return posix.normalize(path).split("/").filter(Boolean).length;
}

/** As the guest's scripts have it, too. */
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * What programs rely on, and the image may leave out; the launch's own values win. The guest adds `HOME`. Whoever has
 * settings for the process has said all of it.
 */
function programEnvironment(
  launch: Pick<ProgramLaunch, "env" | "hostname" | "terminal">,
  process?: ProcessSettings,
): Readonly<Record<string, string>> {
  if (process !== undefined) return launch.env;
  return {
    PATH: usualPath,
    HOSTNAME: launch.hostname,
    ...(launch.terminal ? { TERM: "xterm" } : {}),
    ...launch.env,
  };
}

function environmentLines(env: Readonly<Record<string, string>>): string[] {
  const plain = Object.entries(env).filter(([name]) => plainName.test(name));
  const usual = env["PATH"] === usualPath;
  const words = plain.map(([name, value]) =>
    usual && name === "PATH" ? "PATH=$usual_path" : `${name}=${quote(value)}`,
  );
  return ["unset_own", ...(words.length === 0 ? [] : [`export ${words.join(" ")}`])];
}

function umaskLines(process: ProcessSettings | undefined): string[] {
  return process?.umask === undefined ? [] : [`umask ${(process.umask & 0o777).toString(8).padStart(4, "0")}`];
}

/** The letter of a limit, its hard and its soft value, for each that is said. */
function limitWords({ limits }: Pick<ProcessSettings, "limits">): string {
  return limits
    .flatMap(({ name, soft, hard }) => {
      const { letter, bytes } = limitUnits[name];
      const word = (value: number | undefined): string =>
        value === undefined ? "unlimited" : String(Math.floor(value / bytes));
      return [letter, word(hard), word(soft)];
    })
    .join(" ");
}

/** The arguments of `enter` after the first. */
function enterWords(
  launch: GuestLaunch,
  spec: Partial<Pick<ExecSpec, "env" | "user" | "workdir">>,
  argv: readonly string[],
  process: ProcessSettings | undefined,
): string {
  const extra = Object.entries({ ...programEnvironment(launch, process), ...spec.env }).filter(
    ([name]) => !plainName.test(name),
  );
  return commandLine([
    spec.user ?? launch.user,
    spec.workdir ?? (launch.workdir === "" ? "/" : launch.workdir),
    ...rightWords(launch, process),
    process === undefined ? "" : limitWords(process),
    String(extra.length),
    ...extra.map(([name, value]) => `${name}=${value}`),
    ...argv,
  ]);
}

/** Bounding set, ambient capabilities, and what keeps it from more. */
function rightWords(
  { capabilities }: Pick<ProgramLaunch, "capabilities">,
  process: ProcessSettings | undefined,
): readonly string[] {
  const locked = "--no-new-privs";
  if (process !== undefined) {
    const { bounding, ambient, gainsPrivileges } = process;
    return [capabilityWord(bounding), capabilityWord(ambient), gainsPrivileges ? "" : locked];
  }
  const granted = resolveCapabilities(capabilities);
  const ambient = ociCapabilities(granted, capabilities.add, false)["ambient"] ?? [];
  const isUsual = capabilities.add.length + capabilities.drop.length === 0;
  return [isUsual ? "usual" : capabilityWord(granted), capabilityWord(ambient), locked];
}

/** As setpriv adds them to none. */
export function capabilityWord(names: readonly string[]): string {
  return names.map((name) => `,+${name.replace(/^CAP_/, "").toLowerCase()}`).join("");
}

/** What runs a program in the guest of this launch, as dropbear is told it. Its first line of output is `enter`'s. */
export function execCommand(launch: ProgramLaunch, spec: ExecSpec, process?: ProcessSettings): string {
  const { HOME: _home, ...withoutHome } = launch.env;
  // Another user has another home.
  const env = spec.user === undefined ? launch.env : withoutHome;
  const own = programEnvironment({ ...launch, env }, process);
  const terminal = spec.terminal === undefined || process !== undefined ? {} : { TERM: own["TERM"] ?? "xterm" };
  return [
    ". /croft/guest.sh",
    "join_program",
    ...environmentLines({ ...own, ...terminal, ...spec.env }),
    ...umaskLines(process),
    `enter 1 ${enterWords({ ...launch, env }, spec, spec.argv, process)}`,
  ].join("\n");
}
