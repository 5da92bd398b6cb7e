import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { backgroundCall } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { run, spawnDetached } from "./process.ts";
import { connectSeqpacket } from "./seqpacket.ts";

/** conmon's attach socket, against a real conmon and crun. The first byte of each packet names the stream: 1, 2 or 3. */

const call = backgroundCall();
let directory = "";

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "seqpacket."));
  const root = join(directory, "root");
  for (const name of ["bin", "proc", "dev", "tmp"]) mkdirSync(join(root, name), { recursive: true });
  await copyFile("/bin/busybox", join(root, "bin/busybox"));
  for (const name of ["sh", "cat", "echo", "head", "yes", "sleep", "stty"]) {
    symlinkSync("busybox", join(root, "bin", name));
  }
});

after(() => {
  rmSync(directory, { recursive: true, force: true });
});

test("what goes in by the socket comes out of it, with stdout and stderr apart, and the end is told", async () => {
  const container = await startContainer("plain", ["cat"], []);
  const connection = await connectSeqpacket(container.socket, call);
  await container.begin();
  await connection.send(Buffer.from("one line\n"));
  const seen = new Received(connection.packets);
  await seen.until("one line\n");
  connection.end();
  assert.equal(await seen.rest(), "one line\n");
  await container.finish();
});

test("a terminal echoes and answers", async () => {
  const container = await startContainer("terminal", ["sh", "-c", "stty size; read line; echo got $line"], ["-t"]);
  const connection = await connectSeqpacket(container.socket, call);
  await container.begin();
  await connection.send(Buffer.from("hello\n"));
  assert.match(await new Received(connection.packets).rest(), /got hello\r\n/);
  await container.finish();
});

test("a connection that is closed leaves the container alone, and another may come", async () => {
  const container = await startContainer("again", ["cat"], ["--leave-stdin-open"]);
  const first = await connectSeqpacket(container.socket, call);
  await container.begin();
  first.close();
  first.close();
  await assert.rejects(first.send(Buffer.from("x")), (error) => isFault(error, "unavailable"));
  const second = await connectSeqpacket(container.socket, call);
  await second.send(Buffer.from("second\n"));
  const seen = new Received(second.packets);
  await seen.until("second\n");
  second.close();
  await container.finish();
});

test("cancelling the call ends a connection that waits", async () => {
  const container = await startContainer("cancel", ["sleep", "1000"], []);
  const controller = new AbortController();
  const connection = await connectSeqpacket(container.socket, backgroundCall(call.clock, controller.signal));
  await container.begin();
  const reading = new Received(connection.packets).rest();
  controller.abort();
  await assert.rejects(reading, (error) => isFault(error, "cancelled"));
  await container.finish();
});

test("a flood of output arrives whole, and a reader that is slow gets it too", async () => {
  // conmon drops a client that does not take what it writes; our thread takes it while the reader sleeps.
  const container = await startContainer("flood", ["sh", "-c", "read start; yes | head -c 3000000"], []);
  const connection = await connectSeqpacket(container.socket, call);
  await container.begin();
  await connection.send(Buffer.from("\n"));
  await call.clock.sleep(500);
  assert.equal((await new Received(connection.packets).rest()).length, 3_000_000);
  await container.finish();
});

test("a process that reads no more fails what is sent, and all that it said is heard", async () => {
  const container = await startContainer("deaf", ["sh", "-c", "read line; yes | head -c 300000"], []);
  const connection = await connectSeqpacket(container.socket, call);
  await container.begin();
  const flood = async (): Promise<void> => {
    for (;;) await connection.send(Buffer.alloc(8192, "y\n"));
  };
  const refused = assert.rejects(flood());
  assert.equal((await new Received(connection.packets).rest()).length, 300_000);
  await refused;
  await container.finish();
});

test("a process can exit while it is connected", async () => {
  const container = await startContainer("exit", ["sleep", "1000"], []);
  await container.begin();
  const program = `
    const { connectSeqpacket } = await import(${JSON.stringify(new URL("./seqpacket.ts", import.meta.url).href)});
    const { backgroundCall } = await import(${JSON.stringify(new URL("../base/call.ts", import.meta.url).href)});
    await connectSeqpacket(${JSON.stringify(container.socket)}, backgroundCall());
    process.exit(7);`;
  await run([process.execPath, "--input-type=module", "-e", program], { okCodes: [7], timeoutMs: 20_000 }, call);
  await container.finish();
});

test("a socket that is not there is not found, and one without listener unavailable", async () => {
  await assert.rejects(connectSeqpacket(join(directory, "nothing"), call), (error) => isFault(error, "not-found"));
  const left = join(directory, "left");
  const listener = spawnDetached(["socat", "-u", `UNIX-LISTEN:${left},type=5,unlink-close=0`, "OPEN:/dev/null"], {});
  await waitFor(() => existsSync(left), "socket there");
  process.kill(listener.pid, "SIGKILL");
  await listener.exited;
  await assert.rejects(connectSeqpacket(left, call), (error) => isFault(error, "unavailable"));
});

class Received {
  readonly #packets: AsyncIterator<Uint8Array>;
  #text = "";

  constructor(packets: AsyncIterable<Uint8Array>) {
    this.#packets = packets[Symbol.asyncIterator]();
  }

  async until(text: string): Promise<void> {
    while (!this.#text.includes(text)) assert.ok(await this.#next(), `ended before ${text}`);
  }

  async rest(): Promise<string> {
    while (await this.#next());
    return this.#text;
  }

  async #next(): Promise<boolean> {
    const { done, value } = await this.#packets.next();
    if (done === true) return false;
    assert.ok(value[0] === 1 || value[0] === 2 || value[0] === 3, `stream ${value[0]}`);
    this.#text += Buffer.from(value.subarray(1)).toString();
    return true;
  }
}

/** A created container, whose process waits to be begun. Its socket's path is longer than an address has room for. */
async function startContainer(name: string, args: readonly string[], flags: readonly string[]) {
  const bundle = join(directory, name);
  const deep = join(bundle, "a-directory-with-a-long-name-".repeat(4), "sockets");
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(bundle, "config.json"), JSON.stringify(config(args, flags.includes("-t"))));
  const state = join(directory, "crun");
  const id = `seqpacket-${name}`;
  const pidFile = join(bundle, "pid");
  const monitor = spawnDetached(
    [
      "conmon",
      ...`--api-version 1 --full-attach -i -r /usr/bin/crun -c ${id} -u ${id} -n ${id}`.split(" "),
      ...`-b ${bundle} -p ${pidFile} -l k8s-file:${bundle}/log --exit-dir ${bundle}`.split(" "),
      ...`--runtime-arg --root=${state} --runtime-arg --cgroup-manager=disabled`.split(" "),
      ...flags,
    ],
    { stdio: ["ignore", "ignore", "ignore"] },
  );
  assert.deepEqual(await monitor.exited, { code: 0, signal: null }, "conmon goes to the background");
  await waitFor(() => existsSync(join(bundle, "attach")) && existsSync(pidFile), "container created");
  const socket = join(deep, "attach");
  symlinkSync(join(bundle, "attach"), socket);
  assert.ok(Buffer.byteLength(dirname(socket)) > 108);
  const crun = (...command: string[]) =>
    run(["crun", `--root=${state}`, "--cgroup-manager=disabled", ...command], { okCodes: [0, 1] }, call);
  return {
    socket,
    begin: () => crun("start", id),
    async finish() {
      await crun("kill", id, "KILL");
      await waitFor(() => existsSync(join(bundle, id)), "exit code written");
      await crun("delete", "--force", id);
      assert.ok(readFileSync(pidFile, "utf8") !== "");
    },
  };
}

function config(args: readonly string[], terminal: boolean) {
  return {
    ociVersion: "1.0.2",
    process: { terminal, user: { uid: 0, gid: 0 }, args, env: ["PATH=/bin", "TERM=dumb"], cwd: "/" },
    root: { path: join(directory, "root"), readonly: false },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
      { destination: "/dev/pts", type: "devpts", source: "devpts", options: ["newinstance", "ptmxmode=0666"] },
    ],
    linux: { namespaces: [{ type: "pid" }, { type: "mount" }, { type: "ipc" }, { type: "network" }] },
  };
}

async function waitFor(condition: () => boolean, what: string): Promise<void> {
  for (let tries = 0; tries < 500; tries += 1) {
    if (condition()) return;
    await call.clock.sleep(20);
  }
  assert.fail(`${what}: did not happen within ten seconds`);
}
