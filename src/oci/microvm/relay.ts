import { constants } from "node:os";
import { join } from "node:path";
import { isatty, ReadStream, WriteStream } from "node:tty";
import type { Client, ClientChannel } from "ssh2";
import { ask, connectAt } from "./control.ts";
import { insideDirectory, shared } from "./contract.ts";

/** What a relay is told, by one variable of its environment. */
export interface RelayTask {
  /** The script that the guest runs. */
  readonly script: string;
  /** By which the guest's dropbear is known, as it goes over the wire, in base64. */
  readonly hostKey: string;
  readonly terminal: boolean;
}

export const taskVariable = "CROFT_OCI_TASK";

/** What is quick in a guest without KVM and never out of fashion. */
const algorithms = {
  kex: ["curve25519-sha256"],
  serverHostKey: ["ssh-ed25519"],
  cipher: ["aes128-ctr"],
  hmac: ["hmac-sha2-256"],
  compress: ["none"],
} as const;

/**
 * Stands in the container around QEMU for one program that runs in the guest: passes bytes, signals and the size of its
 * terminal, and ends with its code. What callers watch and signal is this process.
 */
export async function relayProgram(): Promise<number> {
  const { script, hostKey, terminal } = JSON.parse(process.env[taskVariable] ?? "{}") as RelayTask;
  const tty = terminal ? [0, 1, 2].find((fd) => isatty(fd)) : undefined;
  const size = tty === undefined ? [80, 24] : new WriteStream(tty).getWindowSize();
  const client = await connected(join(insideDirectory, shared.shell), Buffer.from(hostKey, "base64"));
  const pty = { cols: size[0] ?? 80, rows: size[1] ?? 24, term: process.env["TERM"] ?? "xterm" };
  const channel = await executed(client, script, terminal ? { pty } : {});
  return await new Promise<number>((resolve) => {
    let begun: string | undefined;
    let first = Buffer.alloc(0);
    let code: number | undefined;
    const output = new WriteQueue(1);
    const errors = new WriteQueue(2);
    channel.on("data", (bytes: Buffer) => {
      if (begun !== undefined) return output.write(bytes);
      first = Buffer.concat([first, bytes]);
      const end = first.indexOf(0x0a);
      if (end === -1) return;
      begun = first.toString("utf8", 0, end).trim();
      if (begun.startsWith("started ")) {
        passInput(channel, tty);
        passSignals(join(insideDirectory, shared.control), Number(begun.slice("started ".length)));
        if (tty !== undefined) followSize(channel, tty);
        return output.write(first.subarray(end + 1));
      }
      const [, kind, ...words] = begun.split(" ");
      const text = words.join(" ");
      errors.write(
        Buffer.from(kind === "program" ? `exec: "${text}": executable file not found in $PATH\n` : `${text}\n`),
      );
      code = kind === "program" ? 127 : 126;
      channel.close();
    });
    channel.stderr.on("data", (bytes: Buffer) => errors.write(bytes));
    channel.on("exit", (status: number | null, signal?: string) => {
      code ??= status ?? 128 + numberOf(signal);
    });
    channel.on("close", () => {
      void Promise.all([output.ended(), errors.ended()]).then(() => resolve(code ?? 137));
    });
  });
}

function numberOf(signal: string | undefined): number {
  return constants.signals[`SIG${signal ?? "KILL"}` as NodeJS.Signals] ?? 9;
}

async function connected(path: string, hostKey: Buffer): Promise<Client> {
  const ssh2 = await import("ssh2");
  const attempts = 3;
  for (let tries = 1; ; tries += 1) {
    const client = new ssh2.Client();
    try {
      await new Promise<void>((resolve, reject) => {
        client.on("ready", () => resolve());
        client.on("error", reject);
        client.on("close", () => reject(new Error("the guest's shell closed the connection")));
        client.connect({
          sock: connectAt(path),
          username: "root",
          authHandler: ["none"],
          readyTimeout: 20_000,
          hostVerifier: (key) => key.equals(hostKey),
          algorithms,
        });
      });
      return client;
    } catch (error) {
      client.end();
      if (tries === attempts) throw error;
    }
  }
}

function executed(client: Client, script: string, options: object): Promise<ClientChannel> {
  return new Promise((resolve, reject) => {
    client.exec(script, options, (error, channel) => (error === undefined ? resolve(channel) : reject(error)));
  });
}

function passInput(channel: ClientChannel, tty: number | undefined): void {
  if (tty !== undefined) new ReadStream(0).setRawMode(true);
  process.stdin.on("data", (bytes: Buffer) => channel.write(bytes));
  process.stdin.on("end", () => channel.end());
  process.stdin.on("error", () => channel.end());
}

const passed = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

function passSignals(control: string, pid: number): void {
  for (const signal of passed) {
    // One that has ended is not told so by an error.
    process.on(signal, () => void ask(control, `kill ${constants.signals[signal]} ${pid}`).catch(() => {}));
  }
}

function followSize(channel: ClientChannel, tty: number): void {
  const terminal = new WriteStream(tty);
  let told = "";
  const look = (): void => {
    const [columns, rows] = terminal.getWindowSize();
    if (`${rows} ${columns}` === told || rows === 0) return;
    told = `${rows} ${columns}`;
    channel.setWindow(rows, columns, 0, 0);
  };
  process.on("SIGWINCH", look);
  // Callers set it when they got the terminal, which may be later than our beginning.
  setInterval(look, 300).unref();
}

/** Writes in order, and knows when all of it was taken. */
class WriteQueue {
  readonly #stream: NodeJS.WriteStream;
  #last: Promise<void> = Promise.resolve();

  constructor(fd: 1 | 2) {
    this.#stream = fd === 1 ? process.stdout : process.stderr;
    this.#stream.on("error", () => {});
  }

  write(bytes: Uint8Array): void {
    this.#last = new Promise((resolve) => this.#stream.write(bytes, () => resolve()));
  }

  ended(): Promise<void> {
    return this.#last;
  }
}
