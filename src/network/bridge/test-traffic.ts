import { execFile, execFileSync } from "node:child_process";
import { createSocket, type Socket as UdpSocket, type SocketOptions } from "node:dgram";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { after } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createNamespace, inNamespace, removeNamespace } from "../../host/netns.ts";

/** Machines and programs for tests of where packets go: each is a network namespace, named by its file. */

/** Where a program runs: the file of a namespace, or `host`, where the driver itself is. */
export type Place = string;

/** What a test that failed left open would keep its process waiting for ever. */
const leftOpen = new Set<{ close(): void }>();
after(() => {
  for (const one of leftOpen) one.close();
});

function inPlace(place: Place, argv: readonly string[]): string[] {
  return place === "host" ? [...argv] : ["nsenter", `--net=${place}`, ...argv];
}

export function command(place: Place, ...argv: string[]): string {
  const [program = "", ...args] = inPlace(place, argv);
  return execFileSync(program, args, { stdio: ["ignore", "pipe", "pipe"] }).toString();
}

/** A TCP server there that says its name and the client's address, and then echoes until the client ends. */
export function serve(place: Place, port: number, name: string): { close(): void } {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => {});
    socket.write(`${name} ${socket.remoteAddress?.replace("::ffff:", "")}\n`);
    socket.pipe(socket);
  });
  // Without an address the socket is made at once, while the thread is in the namespace.
  if (place === "host") server.listen(port);
  else inNamespace(place, () => server.listen(port));
  const served = {
    close() {
      leftOpen.delete(served);
      server.close();
      // An open socket would keep its namespace alive.
      for (const socket of open) socket.destroy();
    },
  };
  leftOpen.add(served);
  return served;
}

/** What the server at `address`:`port` says to a client in `place`; `nothing` when it cannot be reached within two seconds, in which a lost packet is sent again. */
export function ask(place: Place, address: string, port: number): Promise<string> {
  const [program = "", ...args] = inPlace(place, [
    "socat",
    "-T3",
    "-,ignoreeof",
    `TCP4:${address}:${port},connect-timeout=2`,
  ]);
  return new Promise((resolve) => {
    const child = execFile(program, args, () => resolve("nothing"));
    child.stdout?.once("data", (chunk: string) => {
      resolve(chunk.trim());
      child.kill();
    });
  });
}

/**
 * Waits until no TCP connection is left there but those that the kernel only remembers. One that is being closed when its
 * link is taken away keeps its namespace alive until nobody hopes for an answer any more, which takes minutes.
 */
export async function untilClosed(place: Place): Promise<void> {
  const remembered = "06";
  for (let tries = 0; tries < 500; tries += 1) {
    const lines = command(place, "cat", "/proc/net/tcp", "/proc/net/tcp6").split("\n");
    const states = lines.map((line) => line.trim().split(/\s+/)[3] ?? "");
    if (states.every((state) => !/^0[0-9A-F]$/.test(state) || state === remembered)) return;
    await sleep(20);
  }
  throw new Error(`connections stay open in ${place}`);
}

/** The same by one UDP packet, from a fixed port where that matters; `nothing` after two seconds without an answer. */
export async function askUdp(place: Place, address: string, port: number, sourcePort = 0): Promise<string> {
  const socket = udpSocket(place, sourcePort);
  try {
    socket.send("hello", port, address);
    const [answer] = (await once(socket, "message", { signal: AbortSignal.timeout(2000) })) as [Buffer];
    return answer.toString();
  } catch {
    return "nothing";
  } finally {
    socket.close();
  }
}

/** A UDP server there that answers every packet with its name and the client's address. */
export function serveUdp(place: Place, port: number, name: string): UdpSocket {
  const socket = udpSocket(place, port);
  socket.on("message", (_packet, peer) => socket.send(`${name} ${peer.address}`, peer.port, peer.address));
  return socket;
}

function udpSocket(place: Place, port: number): UdpSocket {
  // With a lookup that does not wait, the socket is made at once, while the thread is in the namespace.
  const lookup = ((host: string, _options: unknown, done: (error: null, address: string, family: number) => void) =>
    done(null, host, 4)) as SocketOptions["lookup"];
  const socket = createSocket({ type: "udp4", ...(lookup === undefined ? {} : { lookup }) });
  socket.on("error", () => {});
  leftOpen.add(socket);
  socket.once("close", () => leftOpen.delete(socket));
  if (place === "host") socket.bind(port, "0.0.0.0");
  else inNamespace(place, () => socket.bind(port, "0.0.0.0"));
  return socket;
}

/** Another machine, on a link of its own to this one: `192.0.2.9` there, `192.0.2.1` here, which is its way out. */
export function addOtherMachine(path: string, link = "uplink", subnet = "192.0.2"): void {
  createNamespace(path, () => {});
  execFileSync("ip", ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", path]);
  command("host", "ip", "address", "add", `${subnet}.1/24`, "dev", link);
  command("host", "ip", "link", "set", link, "up");
  command(path, "ip", "link", "set", "lo", "up");
  command(path, "ip", "address", "add", `${subnet}.9/24`, "dev", "eth0");
  command(path, "ip", "link", "set", "eth0", "up");
  command(path, "ip", "route", "add", "default", "via", `${subnet}.1`);
}

export function removeOtherMachine(path: string, link = "uplink"): void {
  command("host", "ip", "link", "delete", link);
  removeNamespace(path);
}
