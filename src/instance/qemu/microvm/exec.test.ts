import assert from "node:assert/strict";
import { closeSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server as SocketServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRequire } from "node:module";
import { afterEach, beforeEach, describe, it } from "node:test";
import { backgroundCall, type Call } from "../../../base/call.ts";
import { homeBeneath } from "../../../base/home.ts";
import { instanceId } from "../../../base/id.ts";
import { settled, TestClock } from "../../../base/test-clock.ts";
import { listenUnixStream } from "../../../host/unix-listen.ts";
import type { ProgramLaunch, Session } from "../../contract.ts";
import { plainProgram } from "../../launch.fixture.ts";
import { layoutOf } from "../../monitor/layout.ts";
import { execInGuest } from "./exec.ts";
import { machinePaths, type MachinePaths } from "./place.ts";
import { Shells, type ShellPlace } from "./shell.ts";

/** What the package has besides what `ssh2.d.ts` says of it. */
interface ServerChannel {
  write(text: string): void;
  exit(code: number): void;
  end(): void;
}
interface ServerClient {
  on(event: string, listener: (...values: never[]) => void): this;
}
interface Ssh2 {
  readonly Server: new (
    options: { readonly hostKeys: readonly string[] },
    onClient: (client: ServerClient) => void,
  ) => { injectSocket(socket: Socket): void };
  readonly utils: { generateKeyPairSync(kind: string): { readonly private: string; readonly public: string } };
}
const ssh2 = createRequire(import.meta.url)("ssh2") as Ssh2;

/** A guest as far as it runs programs: its dropbear and its first process, which do what a test says. */
class ImitatedGuest {
  /** How many connections to its shell there were. */
  connections = 0;
  readonly kills: string[] = [];
  /** What becomes of a command; without it nothing does. */
  run: (channel: ServerChannel) => void = () => {};
  isStuck = false;
  onConnection: (socket: Socket) => boolean = () => true;
  readonly #servers: SocketServer[] = [];
  readonly #sockets: Socket[] = [];
  readonly #key = ssh2.utils.generateKeyPairSync("ed25519");

  get hostKey(): Buffer {
    return Buffer.from(this.#key.public.split(" ")[1] ?? "", "base64");
  }

  async listen({ shellSocket, controlSocket }: MachinePaths): Promise<void> {
    const shell = new ssh2.Server({ hostKeys: [this.#key.private] }, (client) => this.#serve(client));
    await this.#listen(shellSocket, (socket) => {
      this.connections += 1;
      if (this.onConnection(socket)) shell.injectSocket(socket);
      else socket.destroy();
    });
    await this.#listen(controlSocket, (socket) => {
      socket.on("data", (bytes) => {
        for (const line of String(bytes).split("\n")) {
          const [mark, verb, signal, pid] = line.split(" ");
          if (verb !== "kill" || this.isStuck) continue;
          this.kills.push(`${signal} ${pid}`);
          socket.write(`${mark} ok\n`);
        }
      });
    });
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #listen(path: string, onConnection: (socket: Socket) => void): Promise<void> {
    const server = createServer((socket) => {
      this.#sockets.push(socket);
      socket.on("error", () => {});
      onConnection(socket);
    });
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
  }

  #serve(client: ServerClient): void {
    client.on("error", () => {});
    client.on("authentication", (context: { accept(): void }) => context.accept());
    client.on("session", (accept: () => ServerClient) => {
      accept().on("exec", (acceptExec: () => ServerChannel) => {
        if (!this.isStuck) this.run(acceptExec());
      });
    });
  }
}

async function said({ output }: Session): Promise<string> {
  const pieces = await Array.fromAsync(output);
  return pieces.map(({ bytes }) => Buffer.from(bytes).toString("utf8")).join("");
}

/** Waits for what comes by sockets, which no clock of ours knows of. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await settled();
}

/** Time goes on until it is done. */
async function passing<Value>(clock: TestClock, work: Promise<Value>): Promise<Value> {
  const state = { isOver: false };
  const over = (): void => void (state.isOver = true);
  work.then(over, over);
  while (!state.isOver) await clock.advance(100);
  return await work;
}

/** A program that says a word and ends. */
function ends(code: number): (channel: ServerChannel) => void {
  return (channel) => {
    channel.write("started 7\nhello\n");
    channel.exit(code);
    channel.end();
  };
}

const noAnswer = { reason: "unavailable", message: /the guest does not answer/ };

describe("programs in a guest that does not do what it is told", () => {
  const id = instanceId("shop", "web", 1, "0123abcd");
  let directory: string;
  let machine: MachinePaths;
  let guest: ImitatedGuest;
  let shells: Shells;
  let clock: TestClock;
  let place: ShellPlace;

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "exec."));
    machine = machinePaths(layoutOf(homeBeneath(directory), "microvm").of(id));
    mkdirSync(machine.socketDir, { recursive: true });
    guest = new ImitatedGuest();
    shells = new Shells();
    clock = new TestClock();
    place = {
      what: `run a program in ${id}`,
      socketPath: machine.shellSocket,
      hostKey: guest.hostKey,
      begin: async () => {},
    };
  });
  afterEach(() => {
    guest.close();
    rmSync(directory, { recursive: true });
  });

  const launch = { id, ...plainProgram } as ProgramLaunch;
  const exec = (call: Call = backgroundCall(clock)): Promise<Session> =>
    execInGuest(place, machine, launch, { argv: ["true"], env: {}, stdin: false }, shells, call);

  it("uses one connection for all, also when the first attempt to make it failed", async () => {
    guest.onConnection = () => guest.connections > 1;
    guest.run = ends(5);
    await guest.listen(machine);
    const running = exec();
    await until(() => clock.waiting > 0);
    await clock.advance(100);
    const session = await running;
    assert.equal(await said(session), "hello\n");
    assert.equal(await session.exited, 5);
    await (
      await exec()
    ).exited;
    assert.equal(guest.connections, 2);
  });

  it("says after a while that it does not answer, and tries again by another connection", async () => {
    guest.run = ends(0);
    await guest.listen(machine);
    await (
      await exec()
    ).exited;
    guest.isStuck = true;
    const begunMs = clock.nowMs();
    await assert.rejects(passing(clock, exec()), noAnswer);
    assert.ok(clock.nowMs() - begunMs >= 20_000, "not too early");
    guest.isStuck = false;
    assert.equal(await (await exec()).exited, 0);
    assert.equal(guest.connections, 2);
  });

  it("does not wait for ever for the first word of a program", async () => {
    await guest.listen(machine);
    let isAsked = false;
    guest.run = () => (isAsked = true);
    const running = exec();
    running.catch(() => {});
    await until(() => isAsked);
    await assert.rejects(passing(clock, running), noAnswer);
  });

  it("does not keep a caller who gives up, and ends what begins all the same", async () => {
    await guest.listen(machine);
    let channel: ServerChannel | undefined;
    guest.run = (made) => (channel = made);
    const cancel = new AbortController();
    const running = exec(backgroundCall(clock, cancel.signal));
    await until(() => channel !== undefined);
    cancel.abort();
    await assert.rejects(running, { reason: "cancelled" });
    channel?.write("started 9\n");
    await until(() => guest.kills.length > 0);
    assert.deepEqual(guest.kills, ["9 9"]);
  });

  it("is killed when its caller gives up, and when its session is closed, unless it is over", async () => {
    await guest.listen(machine);
    guest.run = (channel) => channel.write("started 9\n");
    const cancel = new AbortController();
    await exec(backgroundCall(clock, cancel.signal));
    cancel.abort();
    await until(() => guest.kills.length === 1);
    await (await exec()).close();
    assert.deepEqual(guest.kills, ["9 9", "9 9"]);
    guest.run = ends(0);
    const over = await exec();
    await over.exited;
    await over.close();
    assert.equal(guest.kills.length, 2);
  });

  it("ends its output when it cannot be killed", async () => {
    await guest.listen(machine);
    guest.run = (channel) => channel.write("started 9\nhello\n");
    const session = await exec();
    const output = said(session);
    guest.isStuck = true;
    await passing(clock, session.close());
    assert.equal(await output, "hello\n");
    assert.equal(await session.exited, 137);
  });

  it("does not say that it is not there when others wait for its shell", async () => {
    // Nobody accepts here, so that what connects waits.
    const unattended = listenUnixStream(machine.shellSocket);
    const some = Array.from({ length: 10 }, () => {
      shells = new Shells();
      return exec();
    });
    for (const one of some) one.catch(() => {});
    await assert.rejects(passing(clock, Promise.race(some)), { reason: "unavailable" });
    // Without a listener they end, and who comes then is told that nobody is there.
    closeSync(unattended);
    shells = new Shells();
    await assert.rejects(exec(), { reason: "precondition" });
  });
});
