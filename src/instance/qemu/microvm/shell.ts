import { Socket } from "node:net";
import type { Client, ClientChannel } from "ssh2";
import { type Call, throwIfCancelled } from "../../../base/call.ts";
import { Fault, isFault } from "../../../base/fault.ts";
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

/** One connection to each guest that is needed, shared by all programs that run in it, and closed when it was idle a while. */
export class Shells {
  readonly #connections = new Map<string, Promise<Connection>>();

  /** Begins a command. `unavailable` when the guest does not answer. */
  async exec(
    place: ShellPlace,
    command: string,
    options: Parameters<Client["exec"]>[1],
    call: Call,
  ): Promise<ClientChannel> {
    for (let tries = 1; ; tries += 1) {
      throwIfCancelled(call);
      const connection = await this.#connection(place, call);
      try {
        return await connection.exec(command, options);
      } catch (error) {
        // It was closed from the other side between two uses, or the guest could not make a process: nothing has begun.
        if (tries === attempts) throw error;
        if (connection.isOpen) await call.clock.sleep(againMs, call.signal);
      }
    }
  }

  async #connection(place: ShellPlace, call: Call): Promise<Connection> {
    const key = `${place.socketPath}\0${place.hostKey.toString("base64")}`;
    const known = this.#connections.get(key);
    if (known !== undefined) return await known;
    const made = openConnection(place, call, () => this.#connections.delete(key));
    this.#connections.set(key, made);
    try {
      return await made;
    } catch (error) {
      this.#connections.delete(key);
      throw error;
    }
  }
}

async function openConnection(place: ShellPlace, call: Call, onClose: () => void): Promise<Connection> {
  // Takes some 50 ms, so nobody waits for it who does not need it.
  const [ssh2] = await Promise.all([import("ssh2"), place.begin(call)]);
  for (let tries = 1; ; tries += 1) {
    throwIfCancelled(call);
    const client = new ssh2.Client();
    const connection = new Connection(client, place, call, onClose);
    try {
      await connection.open();
      return connection;
    } catch (error) {
      connection.close();
      if (tries === attempts || isFault(error, "hostile") || isFault(error, "precondition")) throw error;
    }
  }
}

class Connection {
  readonly #client: Client;
  readonly #place: ShellPlace;
  readonly #call: Call;
  readonly #onClose: () => void;
  #open = false;
  #sessions = 0;
  #socket: Socket | undefined;
  #stopIdle: (() => void) | undefined;

  constructor(client: Client, place: ShellPlace, call: Call, onClose: () => void) {
    this.#client = client;
    this.#place = place;
    this.#call = call;
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
        this.#open = false;
        this.#stopIdle?.();
        this.#onClose();
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

  exec(command: string, options: Parameters<Client["exec"]>[1]): Promise<ClientChannel> {
    this.#sessions += 1;
    this.#stopIdle?.();
    this.#socket?.ref();
    return new Promise((resolve, reject) => {
      this.#client.exec(command, options, (error, channel) => {
        if (error !== undefined) {
          this.#release();
          reject(new Fault("unavailable", `${this.#place.what}: ${error.message}`, { cause: error }));
          return;
        }
        channel.on("close", () => this.#release());
        resolve(channel);
      });
    });
  }

  close(): void {
    this.#client.destroy();
  }

  #release(): void {
    this.#sessions -= 1;
    if (this.#sessions > 0) return;
    this.#stopIdle = this.#call.clock.after(idleMs, () => this.#client.end());
    // An idle connection is nobody's work: it does not keep the process alive.
    this.#socket?.unref();
  }
}
