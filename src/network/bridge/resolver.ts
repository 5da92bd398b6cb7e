import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { NetworkId } from "../../base/id.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import { identifyProcess, isAlive, type ProcessIdentity, signalProcess } from "../../host/proc.ts";
import { run } from "../../host/process.ts";
import type { Routing } from "../contract.ts";
import { writeWhole } from "./record.ts";
import { writeSysctl } from "./forwarding.ts";

/**
 * Names of instances, answered by dnsmasq: a process of its own that goes on when the daemon ends.
 *
 * A resolver listens on one address of one bridge and answers for one set of networks. Each network's gateway address
 * answers for that network. An instance in several networks must find names of all of them with one resolver, as a libc
 * asks the second one only when the first is silent; so each such combination has a resolver of its own, at an address
 * from the upper end of the first network's subnet. It goes with the last instance that is in all of them, and answers
 * none but those: others on that bridge must not learn the names of networks that they are not in.
 *
 * Each network has a directory with one file in the format of `/etc/hosts`; dnsmasq is told by inotify when it is
 * replaced, and answers by it within a millisecond. (In dnsmasq before 2.87 removed names stayed.)
 */
export interface Resolver {
  readonly address: string;
  readonly networks: readonly NetworkId[];
  /** Names from outside do not exist for these instances. */
  readonly internal: boolean;
}

export class Resolvers {
  readonly #directory: string;
  readonly #hostsDirectory: string;
  /** What is being done about one address; the next thing waits for it. */
  readonly #busy = new Map<string, Promise<void>>();

  /** `directory` is made with all above it. */
  constructor(directory: string) {
    this.#directory = join(directory, "resolver");
    this.#hostsDirectory = join(directory, "hosts");
    mkdirSync(this.#directory, { recursive: true, mode: 0o755 });
    mkdirSync(this.#hostsDirectory, { recursive: true, mode: 0o755 });
  }

  /** Makes these the names of a network. An equal list again costs nothing. */
  setNames(network: NetworkId, names: Routing["names"]): void {
    const directory = join(this.#hostsDirectory, network);
    const path = join(directory, "names");
    const text = hostsText(names);
    try {
      mkdirSync(directory, { recursive: true, mode: 0o755 });
      if (readText(path) !== text) writeWhole(path, text);
    } catch (error) {
      throw hostFault(error, `write the names of network ${network}`);
    }
  }

  /** Networks that have names. */
  named(): NetworkId[] {
    return readdirSync(this.#hostsDirectory) as NetworkId[];
  }

  forgetNames(network: NetworkId): void {
    rmSync(join(this.#hostsDirectory, network), { recursive: true, force: true });
  }

  /** Whether a process answers at `address`. */
  isRunning(address: string): boolean {
    return this.#process(address) !== undefined;
  }

  /** Has it run, as described. Its address must be on a link already. */
  async ensure(resolver: Resolver, call: Call): Promise<void> {
    await this.#alone(resolver.address, async () => {
      const path = this.#configuration(resolver.address);
      const text = this.#configurationText(resolver);
      const before = readText(path);
      if (before === text && this.isRunning(resolver.address)) return;
      if (before !== undefined) await this.#end(resolver.address, this.#process(resolver.address), call);
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      for (const network of resolver.networks) {
        mkdirSync(join(this.#hostsDirectory, network), { recursive: true, mode: 0o755 });
      }
      writeWhole(path, text);
      allowAnotherWatcher(this.configured().length);
      await this.#start(resolver, path, call);
    });
  }

  async stop(address: string, call: Call): Promise<void> {
    await this.#alone(address, async () => {
      const known = this.#process(address);
      // First the configuration: a daemon that was killed may have left a dnsmasq that is only just starting. Without
      // configuration it ends by itself; with it, it can be seen by now.
      rmSync(dirname(this.#configuration(address)), { recursive: true, force: true });
      await this.#end(address, known, call);
    });
  }

  /** Addresses for which there is a configuration, whether or not a process runs. */
  configured(): string[] {
    return readdirSync(this.#directory);
  }

  /** dnsmasq returns when its child listens; what is wrong is on stderr. */
  async #start(resolver: Resolver, path: string, call: Call): Promise<void> {
    const attempted = `start the resolver of ${resolver.networks.join(" and ")} at ${resolver.address}`;
    const deadlineMs = call.clock.monotonicMs() + 2000;
    for (;;) {
      try {
        await run(["dnsmasq", `--conf-file=${path}`], { attempted, timeoutMs: 5000 }, call);
        return;
      } catch (error) {
        // A process that is just dying gives its memory back, by which it is known, before its sockets.
        const held = error instanceof Fault && error.message.includes("Address already in use");
        if (!held || call.clock.monotonicMs() > deadlineMs) throw error;
      }
      await call.clock.sleep(10, call.signal);
    }
  }

  /** Ends all that answers there; while dnsmasq starts, and when it was started twice, that is more than one process. */
  async #end(address: string, known: ProcessIdentity | undefined, call: Call): Promise<void> {
    const deadlineMs = call.clock.monotonicMs() + 2000;
    let found = known ?? this.#search(address);
    while (found !== undefined) {
      signalProcess(found, "SIGTERM");
      while (isAlive(found)) {
        if (call.clock.monotonicMs() > deadlineMs) signalProcess(found, "SIGKILL");
        await call.clock.sleep(2, call.signal);
      }
      found = this.#search(address);
    }
  }

  #process(address: string): ProcessIdentity | undefined {
    const pid = Number(readText(join(this.#directory, address, "pid")) ?? "0");
    return pid > 0 ? this.#ifOurs(pid, address) : undefined;
  }

  /** For a process whose file with its number was lost; without this it would hold the address for ever. */
  #search(address: string): ProcessIdentity | undefined {
    for (const entry of readdirSync("/proc")) {
      const pid = Number(entry);
      const found = Number.isInteger(pid) ? this.#ifOurs(pid, address) : undefined;
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Numbers of processes are reused: only a command line with our configuration file is proof. */
  #ifOurs(pid: number, address: string): ProcessIdentity | undefined {
    const identity = identifyProcess(pid);
    const argument = `--conf-file=${this.#configuration(address)}`;
    const ours = readText(`/proc/${pid}/cmdline`)?.split("\0").includes(argument) === true;
    return ours && identity !== undefined && isAlive(identity) ? identity : undefined;
  }

  #configuration(address: string): string {
    return join(this.#directory, address, "dnsmasq.conf");
  }

  #configurationText(resolver: Resolver): string {
    const { user, group } = this.#account();
    return [
      `# The resolver of ${resolver.networks.join(" and ")}. Written by Croft; changes are lost.`,
      `listen-address=${resolver.address}`,
      "bind-interfaces",
      `pid-file=${join(this.#directory, resolver.address, "pid")}`,
      `user=${user}`,
      `group=${group}`,
      "no-hosts",
      ...resolver.networks.map((network) => `hostsdir=${join(this.#hostsDirectory, network)}`),
      // Names without a dot are instances or nothing; addresses of private networks have names here or nowhere.
      "domain-needed",
      "bogus-priv",
      // A name that did not exist outside a moment ago may be an instance's now.
      "no-negcache",
      "cache-size=1000",
      ...(resolver.internal ? ["no-resolv", "address=/#/"] : ["resolv-file=/etc/resolv.conf"]),
      "",
    ].join("\n");
  }

  /**
   * Nobody, unless our directory lies beneath one that is closed to others (a daemon with a root directory of its own,
   * such as in a private temporary directory): there nobody could not read the names.
   */
  #account(): { readonly user: string; readonly group: string } {
    const othersMayEnter = 0o001;
    for (let path = this.#hostsDirectory; path !== "/"; path = dirname(path)) {
      if ((statSync(path).mode & othersMayEnter) === 0) return { user: "root", group: "root" };
    }
    const debianGroup = (readText("/etc/group") ?? "").includes("\nnogroup:");
    return { user: "nobody", group: debianGroup ? "nogroup" : "nobody" };
  }

  async #alone(address: string, action: () => Promise<void>): Promise<void> {
    const before = this.#busy.get(address) ?? Promise.resolve();
    const mine = before.then(action, action);
    this.#busy.set(address, mine);
    try {
      await mine;
    } finally {
      if (this.#busy.get(address) === mine) this.#busy.delete(address);
    }
  }
}

/**
 * `/etc/hosts` for these names: one line for each address. The first name of a line is the answer to the question which
 * name an address has, so the one that the fewest addresses share comes first: `web-1` before `web`.
 */
export function hostsText(names: Routing["names"]): string {
  const namesByAddress = new Map<string, Set<string>>();
  const addressesByName = new Map<string, Set<string>>();
  for (const { name, address } of names) {
    if (!/^[a-z0-9-]+(\.[a-z0-9-]+)*$/.test(name)) throw new Fault("invalid", `"${name}" cannot be a host's name`);
    group(namesByAddress, address).add(name);
    group(addressesByName, name).add(address);
  }
  const shared = (name: string): number => addressesByName.get(name)?.size ?? 0;
  return [...namesByAddress]
    .map(([address, own]) => `${address} ${[...own].sort((left, right) => shared(left) - shared(right)).join(" ")}\n`)
    .sort()
    .join("");
}

/**
 * Each resolver watches its files by inotify, of which the kernel allows an unprivileged user 128 by default. On a host
 * with many networks the limit is raised, never lowered; the memory is accounted to who uses it.
 */
function allowAnotherWatcher(resolvers: number): void {
  const path = "/proc/sys/fs/inotify/max_user_instances";
  const others = 100;
  if (Number(readText(path) ?? Infinity) < resolvers + others) writeSysctl(path, String(2 * resolvers + others));
}

function group(map: Map<string, Set<string>>, key: string): Set<string> {
  const set = map.get(key) ?? new Set();
  map.set(key, set);
  return set;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes(errnoOf(error) ?? "")) return undefined;
    throw hostFault(error, `read ${path}`);
  }
}
