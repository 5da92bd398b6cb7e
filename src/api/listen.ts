import { chmod, chown, readFile, rm } from "node:fs/promises";
import { connect, createServer, type ListenOptions, type Server } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { Fault } from "../base/fault.ts";
import { Dispatcher, type DispatchOptions } from "./dispatch.ts";
import { Door, type Authenticate } from "./door.ts";
import type { Served } from "./handler.ts";
import { RestServer } from "./rest/server.ts";
import { authenticate, type KeptToken } from "./token.ts";

/** Where the daemon can be asked. */
export interface Listening {
  /** Whoever may open the file may do everything; root and, where it exists, the group `croft`. */
  readonly socketPath: string;
  readonly tcp?: TcpListening;
}

export interface TcpListening {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** Who may come in. Never empty: nobody is let in over TCP without a token. */
  readonly tokens: readonly KeptToken[];
  /** In PEM. Without it the token travels in the clear, which suits loopback and a tunnel only. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** The API while it is served. */
export interface Api {
  /** The port on TCP, when it listens there. */
  readonly tcpPort: number | undefined;
  /** Takes no more connections, lets calls finish for `graceMs`, then ends them. */
  close(graceMs: number): Promise<void>;
}

/** More connections than this are turned away: each is a file descriptor that a workload's monitor may need. */
const maxConnections = 1024;

/** Serves `services` at every place of `listening`, or at none: throws `conflict` when an address is taken. */
export async function listen(
  services: readonly Served[],
  listening: Listening,
  options: DispatchOptions,
): Promise<Api> {
  const dispatcher = new Dispatcher(services, options);
  const rest = new RestServer(dispatcher);
  const closers: ((graceMs: number) => Promise<void>)[] = [];
  const close = async (graceMs: number): Promise<void> => {
    await Promise.all(closers.map((closer) => closer(graceMs)));
  };
  const open = async (server: Server, door: Door, event: string, place: ListenOptions): Promise<void> => {
    server.maxConnections = maxConnections;
    server.on(event, (socket) => door.accept(socket));
    await bound(server, place);
    closers.push(async (graceMs) => {
      const stopped = new Promise((resolve) => server.close(resolve));
      await door.close(graceMs);
      await stopped;
    });
  };
  try {
    let tcpPort: number | undefined;
    const { tcp } = listening;
    if (tcp !== undefined) {
      if (tcp.tokens.length === 0) throw new Fault("invalid", "listening on TCP without a token is not allowed");
      const door = new Door(dispatcher, rest, (headers) => authenticate(headers.authorization, tcp.tokens));
      const server =
        tcp.tls === undefined
          ? createServer({ noDelay: true })
          : createTlsServer({
              ...tcp.tls,
              handshakeTimeout: 10_000,
              minVersion: "TLSv1.2",
              ALPNProtocols: ["h2", "http/1.1"],
            });
      const event = tcp.tls === undefined ? "connection" : "secureConnection";
      await open(server, door, event, { host: tcp.host, port: tcp.port });
      const address = server.address();
      tcpPort = typeof address === "object" ? address?.port : undefined;
    }
    await makeWay(listening.socketPath);
    // The mask is for the moment between binding and chmod, when anybody could connect.
    const mask = process.umask(0o177);
    const opening = open(createServer(), new Door(dispatcher, rest, trusted), "connection", {
      path: listening.socketPath,
    });
    process.umask(mask);
    await opening;
    await admitGroup(listening.socketPath);
    return { tcpPort, close };
  } catch (error) {
    await close(0);
    throw error;
  }
}

/** The file's mode has let them in; the name is only what they say it is. */
const trusted: Authenticate = (headers) => {
  const header = headers["x-croft-user"];
  if (typeof header !== "string") return "local";
  try {
    const name = decodeURIComponent(header).slice(0, 64);
    return /^[\p{L}\p{N}._@ -]+$/u.test(name) ? name : "local";
  } catch {
    return "local";
  }
};

function bound(server: Server, place: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const where = place.path ?? `${place.host}:${place.port}`;
      const taken = "code" in error && error.code === "EADDRINUSE";
      reject(
        taken
          ? new Fault("conflict", `listen on ${where}: something listens there already`, { cause: error })
          : Fault.from(error, `listen on ${where}`),
      );
    });
    server.listen(place, resolve);
  });
}

/** Removes the socket that a daemon left behind when it was killed; one that still answers belongs to a live daemon. */
async function makeWay(socketPath: string): Promise<void> {
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect(socketPath);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (alive) {
    throw new Fault("conflict", `another daemon answers at ${socketPath}`, {
      hint: "stop it, or give this one another root",
    });
  }
  await rm(socketPath, { force: true });
}

async function admitGroup(socketPath: string): Promise<void> {
  const groups = await readFile("/etc/group", "utf8").catch(() => "");
  const [, id] = /^croft:[^:]*:(\d+):/m.exec(groups) ?? [];
  if (id === undefined) return;
  await chown(socketPath, process.getuid?.() ?? 0, Number(id));
  await chmod(socketPath, 0o660);
}
