import { Socket } from "node:net";
import type { Client, ClientChannel } from "ssh2";
import {
  backgroundCall,
  type Call,
  type Clock,
  orCancelled,
  throwIfCancelled,
  withDeadline,
} from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
import { errnoOf } from "../../../host/errno.ts";
import { connectUnixStream } from "../../../host/unix-stream.ts";

/** A guest's dropbear: where it listens, and by which key it is known. */
export interface ShellPlace {
  readonly what: string;
  readonly socketPath: string;
  readonly hostKey: Buffer;
  /** Makes the guest have it; repeated without harm. */
  begin(call: Call): Promise<void>;
}

/** A guest without KVM needs a while for the arithmetic, on a busy machine a long one. */
const readyTimeoutMs = 20_000;
/** Whoever was there before may have left dropbear in the middle of something: then it is begun anew. */
const attempts = 3;
const againMs = 100;
/** Making a connection takes a guest without KVM a fifth of a second, and health checks come every few seconds. */
const idleMs = 60_000;

/** What is quick in a guest without KVM and never out of fashion. */
const algorithms = {
  kex: ["curve25519-sha256"],
  serverHostKey: ["ssh-ed25519"],
  cipher: ["chacha20-poly1305@openssh.com", "aes128-ctr"],
  hmac: ["hmac-sha2-256"],
  compress: ["none"],
};

/** Whatever a guest has to do before a program runs takes it less, also on a busy machine, unless it is stuck. */
export const beginTimeoutMs = 20_000;

/** A command that was begun. */
export interface ShellCommand {
  readonly channel: ClientChannel;
  /** Ends the connection that it came by, and with it all others that did: for a guest that does not do what it is told. */
  hangUp(): void;
}

/** One connection to each guest that is needed, shared by all programs that run in it, and closed when it was idle a while. */
export class Shells {
  readonly #connections = new Map<string, Promise<Connection>>();

  /** Begins a command. `unavailable` when the guest does not answer. Once it is told to the guest, it is not cancelled. */
  async exec(
    place: ShellPlace,
    command: string,
    options: Parameters<Client["exec"]>[1],
    call: Call,
  ): Promise<ShellCommand> {
    for (let tries = 1; ; tries += 1) {
      throwIfCancelled(call);
      const connection = await orCancelled(this.#connection(place, call.clock), call);
      try {
        const channel = await connection.exec(command, options);
        return { channel, hangUp: () => connection.close() };
      } catch (error) {
        // It was closed from the other side between two uses, or the guest could not make a process: nothing has begun.
        if (isFault(error, "timeout")) {
          throw new Fault("unavailable", `${place.what}: the guest does not answer`, { cause: error });
        }
        if (tries === attempts) throw error;
        if (connection.isOpen) await call.clock.sleep(againMs, call.signal);
      }
    }
  }

  /** Made by whoever comes first, for all who come: it does not end with its caller's patience. */
  #connection(place: ShellPlace, clock: Clock): Promise<Connection> {
    const key = `${place.socketPath}\0${place.hostKey.toString("base64")}`;
    const known = this.#connections.get(key);
    if (known !== undefined) return known;
    const forget = (): void => {
      if (this.#connections.get(key) === made) this.#connections.delete(key);
    };
    const made = openConnection(place, backgroundCall(clock), forget);
    this.#connections.set(key, made);
    made.catch(forget);
    return made;
  }
}

async function openConnection(place: ShellPlace, call: Call, onClose: () => void): Promise<Connection> {
  // Takes some 50 ms, so nobody waits for it who does not need it.
  const [ssh2] = await Promise.all([import("ssh2"), place.begin(call)]);
  for (let tries = 1; ; tries += 1) {
    const client = new ssh2.Client();
    const connection = new Connection(client, place, call.clock, onClose);
    try {
      await connection.open();
      return connection;
    } catch (error) {
      connection.close();
      if (tries === attempts || isFault(error, "hostile") || isFault(error, "precondition")) throw error;
      await call.clock.sleep(againMs, call.signal);
    }
  }
}

class Connection {
  readonly #client: Client;
  readonly #place: ShellPlace;
  readonly #clock: Clock;
  readonly #onClose: () => void;
  #open = false;
  #sessions = 0;
  #socket: Socket | undefined;
  #stopIdle: (() => void) | undefined;

  constructor(client: Client, place: ShellPlace, clock: Clock, onClose: () => void) {
    this.#client = client;
    this.#place = place;
    this.#clock = clock;
    this.#onClose = onClose;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  async open(): Promise<void> {
    const { what, socketPath, hostKey } = this.#place;
    let socket: Socket;
    try {
      socket = new Socket({ fd: connectUnixStream(socketPath), readable: true, writable: true });
    } catch (error) {
      // That too many wait there already says that it does.
      if (errnoOf(error) !== "ECONNREFUSED" && !isFault(error, "not-found")) throw error;
      throw new Fault("precondition", `${what}: its machine does not run`, { cause: error });
    }
    this.#socket = socket;
    await new Promise<void>((resolve, reject) => {
      let stranger = false;
      this.#client.on("ready", () => resolve());
      this.#client.on("error", (error) => {
        const reason = stranger ? "hostile" : "unavailable";
        reject(new Fault(reason, `${what}: reach the guest's shell: ${error.message}`, { cause: error }));
      });
      this.#client.on("close", () => {
        // Another attempt may follow one that did not open.
        if (this.#open) this.#onClose();
        this.#open = false;
        this.#stopIdle?.();
        reject(new Fault("unavailable", `${what}: the guest's shell closed the connection`));
      });
      this.#client.connect({
        sock: socket,
        username: "root",
        authHandler: ["none"],
        readyTimeout: readyTimeoutMs,
        hostVerifier(key) {
          stranger = !key.equals(hostKey);
          return !stranger;
        },
        algorithms,
      });
    });
    this.#open = true;
  }

  /** `timeout` when the guest is stuck: then the connection is closed. */
  async exec(command: string, options: Parameters<Client["exec"]>[1]): Promise<ClientChannel> {
    this.#sessions += 1;
    this.#stopIdle?.();
    this.#socket?.ref();
    const { what } = this.#place;
    const begun = new Promise<ClientChannel>((resolve, reject) => {
      this.#client.exec(command, options, (error, channel) => {
        if (error !== undefined) {
          this.#release();
          reject(new Fault("unavailable", `${what}: ${error.message}`, { cause: error }));
          return;
        }
        channel.on("close", () => this.#release());
        resolve(channel);
      });
    });
    using bounded = withDeadline(backgroundCall(this.#clock), beginTimeoutMs, `${what}: reach the guest's shell`);
    try {
      return await orCancelled(begun, bounded);
    } catch (error) {
      if (isFault(error, "timeout")) this.close();
      throw error;
    }
  }

  close(): void {
    this.#client.destroy();
  }

  #release(): void {
    this.#sessions -= 1;
    if (this.#sessions > 0) return;
    this.#stopIdle = this.#clock.after(idleMs, () => this.#client.end());
    // An idle connection is nobody's work: it does not keep the process alive.
    this.#socket?.unref();
  }
}
