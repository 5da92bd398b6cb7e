import { closeSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { dlopen, getInt32 } from "node:ffi";
import { Fault } from "../base/fault.ts";
import { errnoFault, errnoName, errnoOf } from "./errno.ts";

/**
 * Ports of this host: reserving one, and finding out who holds one.
 *
 * A port that is only translated to somewhere else has no socket, so nothing would keep another program from listening
 * there in vain. A reserved port is bound but nobody listens: the kernel refuses it to everyone else, with the error
 * they know.
 */

export type Protocol = "tcp" | "udp";

export interface ReservedPort {
  /** Gives it back. */
  release(): void;
}

const { functions: libc } = dlopen(null, {
  __errno_location: { arguments: [], return: "pointer" },
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  setsockopt: { arguments: ["i32", "i32", "i32", "buffer", "u32"], return: "i32" },
  bind: { arguments: ["i32", "buffer", "u32"], return: "i32" },
});
const errnoAddress = libc.__errno_location();

const afInet = 2;
const sockCloexec = 0o2000000;
const socketTypes = { tcp: 1, udp: 2 } as const;
const solSocket = 1;
const reuseAddress = 2;

/**
 * Binds `address`:`port` without listening. Throws `conflict` (errno EADDRINUSE) when someone holds it, or it on any
 * overlapping address; `invalid` when the address is none of this host's.
 */
export function reservePort(protocol: Protocol, address: string, port: number): ReservedPort {
  const attempted = `reserve ${protocol} port ${address}:${port}`;
  const fd = checked(libc.socket(afInet, socketTypes[protocol] | sockCloexec, 0), attempted);
  try {
    const name = Buffer.alloc(16);
    name.writeUInt16LE(afInet, 0);
    name.writeUInt16BE(port, 2);
    name.set(address.split(".").map(Number), 4);
    // While binding, connections of a server that ended a minute ago are no obstacle; afterwards nobody else may bind.
    if (protocol === "tcp") setReuse(fd, 1, attempted);
    checked(libc.bind(fd, name, name.length), attempted);
    if (protocol === "tcp") setReuse(fd, 0, attempted);
  } catch (error) {
    closeSync(fd);
    const errno = errnoOf(error);
    if (errno === "EADDRINUSE") {
      throw new Fault("conflict", `${attempted}: someone holds it`, { cause: error, detail: { errno } });
    }
    if (errno === "EADDRNOTAVAIL") {
      throw new Fault("invalid", `${attempted}: ${address} is not an address of this host`, {
        cause: error,
        detail: { errno },
      });
    }
    throw error;
  }
  return { release: () => closeSync(fd) };
}

export interface Holder {
  readonly pid: number;
  readonly program: string;
}

/**
 * The process that holds `port` on `address`, on every address, or, where `address` is 0.0.0.0, on any; undefined when
 * there is none to be seen. Looks through all processes: for error messages, not for deciding.
 */
export function findHolder(protocol: Protocol, address: string, port: number): Holder | undefined {
  const inodes = new Set<string>();
  for (const table of [protocol, `${protocol}6`]) {
    for (const socket of parseSockets(readTable(table))) {
      const overlaps = address === "0.0.0.0" || socket.address === undefined || socket.address === address;
      const held = protocol === "udp" || socket.listening;
      if (socket.port === port && overlaps && held) inodes.add(`socket:[${socket.inode}]`);
    }
  }
  return inodes.size === 0 ? undefined : ownerOf(inodes);
}

/** The lines of `/proc/net/tcp` and its kin. `address` is absent for "every address", and for any IPv6 one. */
export function parseSockets(table: string): {
  readonly address?: string;
  readonly port: number;
  readonly listening: boolean;
  readonly inode: string;
}[] {
  const stateListen = "0A";
  return table
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const fields = line.trim().split(/\s+/);
      const [hexAddress = "", hexPort = ""] = fields[1]?.split(":") ?? [];
      const inode = fields[9];
      if (hexPort === "" || inode === undefined) return [];
      // IPv4 addresses are shown as one number in the machine's own byte order.
      const address = hexAddress.length === 8 ? [...Buffer.from(hexAddress, "hex")].toReversed().join(".") : "0.0.0.0";
      return [
        {
          ...(address === "0.0.0.0" ? {} : { address }),
          port: Number.parseInt(hexPort, 16),
          listening: fields[3] === stateListen,
          inode,
        },
      ];
    });
}

function ownerOf(sockets: ReadonlySet<string>): Holder | undefined {
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    try {
      const holds = readdirSync(`/proc/${pid}/fd`).some((fd) => sockets.has(linkOf(`/proc/${pid}/fd/${fd}`)));
      if (holds) return { pid, program: readFileSync(`/proc/${pid}/comm`, "utf8").trim() };
    } catch (error) {
      // Processes end while they are looked at.
      if (!["ENOENT", "ESRCH", "EACCES"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return undefined;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // Closed meanwhile.
    return "";
  }
}

function readTable(name: string): string {
  try {
    return readFileSync(`/proc/net/${name}`, "utf8");
  } catch {
    // Without IPv6 there is no such table.
    return "";
  }
}

function setReuse(fd: number, value: number, attempted: string): void {
  const option = new Uint8Array(new Int32Array([value]).buffer);
  checked(libc.setsockopt(fd, solSocket, reuseAddress, option, option.length), attempted);
}

function checked(result: number, attempted: string): number {
  if (result === -1) throw errnoFault(errnoName(getInt32(errnoAddress)), attempted);
  return result;
}
