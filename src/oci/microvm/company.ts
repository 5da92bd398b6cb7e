import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { constants } from "node:os";
import { join } from "node:path";
import type { Client, ClientChannel } from "ssh2";
import { systemClock } from "../../base/call.ts";
import { exitOf, leaveToGuest } from "../../instance/monitor/guest-channel.ts";
import { insideDirectory, shared } from "./contract.ts";
import { ask, connectAt } from "./control.ts";
import { pieceOf, PieceReader } from "./piece.ts";

/**
 * Programs that run in the guest beside its own. The guest's dropbear is reached by a port that serves one connection at a
 * time, so the watcher has that one, and each program's relay has a socket to the watcher.
 */

/** What a relay asks for. */
export interface CompanyTask {
  /** The script that the guest runs. */
  readonly script: string;
  /** By which the guest's dropbear is known, as it goes over the wire, in base64. */
  readonly hostKey: string;
  readonly terminal?: { readonly cols: number; readonly rows: number; readonly term: string };
}

/** What is quick in a guest without KVM and never out of fashion. */
const algorithms = {
  kex: ["curve25519-sha256"],
  serverHostKey: ["ssh-ed25519"],
  cipher: ["aes128-ctr"],
  hmac: ["hmac-sha2-256"],
  compress: ["none"],
} as const;

/** A guest without KVM on a busy machine takes seconds. */
const beginTimeoutMs = 20_000;

/** Listens for relays until the process ends. */
export function keepCompany(): void {
  const path = join(insideDirectory, shared.company);
  rmSync(path, { force: true });
  const shell = new GuestShell();
  const server = createServer({ allowHalfOpen: true }, (relay) => void serve(relay, shell));
  // Without it no program can be run beside the main one, which goes on.
  server.on("error", () => {});
  server.listen(path);
  server.unref();
}

async function serve(relay: Socket, shell: GuestShell): Promise<void> {
  relay.on("error", () => relay.destroy());
  const reader = new PieceReader();
  let begun: Promise<ClientChannel | undefined> | undefined;
  const take = async (bytes: Buffer): Promise<void> => {
    for (const { kind, bytes: content } of reader.take(bytes)) {
      if (kind === "task" && begun === undefined) begun = begin(relay, shell, content);
      const channel = await begun;
      if (kind === "input") await written(channel, content);
      else if (kind === "input-end") channel?.end();
      else if (kind === "size") {
        const [rows = 24, columns = 80] = content.toString("utf8").split(" ").map(Number);
        channel?.setWindow(rows, columns, 0, 0);
      }
    }
  };
  try {
    for await (const bytes of relay) await take(bytes as Buffer);
  } catch {
    relay.destroy();
  }
}

/** Taken before more is read: what the guest does not want waits with the caller. */
function written(channel: ClientChannel | undefined, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    if (channel === undefined || channel.destroyed || channel.write(bytes)) return resolve();
    channel.once("drain", resolve);
    channel.once("close", resolve);
  });
}

async function begin(relay: Socket, shell: GuestShell, content: Buffer): Promise<ClientChannel | undefined> {
  try {
    const { script, hostKey, terminal } = JSON.parse(content.toString("utf8")) as CompanyTask;
    const channel = await shell.exec(script, hostKey, terminal === undefined ? {} : { pty: terminal });
    attend(relay, channel);
    return channel;
  } catch (error) {
    relay.end(pieceOf("failed", (error as Error).message));
    return undefined;
  }
}

function attend(relay: Socket, channel: ClientChannel): void {
  let first = "";
  let pid: string | undefined;
  const pass = (kind: "output" | "error", stream: NodeJS.ReadableStream) => (bytes: Buffer) => {
    if (kind === "output" && pid === undefined && first.length < 100) {
      first += bytes.toString("latin1");
      pid = /^started (\d+)\r?\n/.exec(first)?.[1];
    }
    if (relay.write(pieceOf(kind, bytes))) return;
    stream.pause();
    relay.once("drain", () => stream.resume());
  };
  leaveToGuest(channel);
  channel.on("data", pass("output", channel));
  channel.stderr.on("data", pass("error", channel.stderr));
  const exited = exitOf(channel);
  let hasEnded = false;
  channel.on("close", () => {
    hasEnded = true;
    void exited.then((code) => relay.end(pieceOf("ended", String(code))));
  });
  relay.on("close", () => {
    if (hasEnded) return;
    // The relay was killed, which is how callers kill a program for sure.
    if (pid === undefined) return channel.close();
    const kill = `kill ${constants.signals.SIGKILL} ${pid}`;
    void ask(join(insideDirectory, shared.control), kill).catch(() => channel.close());
  });
}

/** The one connection to the guest's dropbear: made when it is first needed, and again when it was lost. */
class GuestShell {
  #connected: Promise<Client> | undefined;

  async exec(script: string, hostKey: string, options: object): Promise<ClientChannel> {
    this.#connected ??= this.#connect(Buffer.from(hostKey, "base64"));
    const client = await this.#connected;
    return await new Promise((resolve, reject) => {
      // Whoever else is connected waits for the same guest.
      const stopWaiting = systemClock.after(beginTimeoutMs, () => {
        reject(new Error("the guest does not answer"));
        client.destroy();
      });
      client.exec(script, options, (error, channel) => {
        stopWaiting();
        if (error === undefined) resolve(channel);
        else reject(error);
      });
    });
  }

  async #connect(hostKey: Buffer): Promise<Client> {
    const forget = (): void => {
      this.#connected = undefined;
    };
    const attempts = 3;
    for (let tries = 1; ; tries += 1) {
      try {
        return await connected(hostKey, forget);
      } catch (error) {
        if (tries < attempts) continue;
        forget();
        throw error;
      }
    }
  }
}

async function connected(hostKey: Buffer, onLost: () => void): Promise<Client> {
  const ssh2 = await import("ssh2");
  const client = new ssh2.Client();
  await new Promise<void>((resolve, reject) => {
    client.on("ready", () => {
      client.on("close", onLost);
      resolve();
    });
    client.on("error", reject);
    client.on("close", () => reject(new Error("the guest's shell closed the connection")));
    client.connect({
      sock: connectAt(join(insideDirectory, shared.shell)),
      username: "root",
      authHandler: ["none"],
      readyTimeout: beginTimeoutMs,
      hostVerifier: (key) => key.equals(hostKey),
      algorithms,
    });
  });
  return client;
}
