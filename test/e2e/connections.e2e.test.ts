import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, writeFileSync } from "node:fs";
import { createSocket } from "node:dgram";
import { createConnection } from "node:net";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ask } from "./ask.ts";
import { busyboxImage, TestDaemon } from "./daemon.ts";

interface Shape {
  readonly other?: number;
  readonly version?: number;
  readonly echoes?: number;
}

function stackFile({ other = 1, version = 1, echoes = 1 }: Shape = {}): string {
  return `
stack = "line"
${busyboxImage}
[container.echo]
image      = "box"
command    = ["/bin/busybox", "nc", "-ll", "-p", "7", "-e", "/bin/busybox", "cat"]
replicas   = ${echoes}
publish    = ["18007:7"]
stop-grace = "100ms"

[image.socat]
from  = "box"
files = { ${programFiles("/usr/bin/socat")} }

[container.datagram]
image      = "socat"
command    = ["/usr/bin/socat", "UDP4-LISTEN:7,fork", "EXEC:/bin/busybox cat"]
publish    = ["18008:7/udp"]
stop-grace = "100ms"

[container.other]
image      = "box"
command    = ["/bin/busybox", "sleep", "1000000"]
env        = { VERSION = "${other}" }
stop-grace = "100ms"

[container.web]
image      = "box"
command    = ["/bin/busybox", "sh", "-c", "trap 'sleep 1; exit 0' TERM; busybox httpd -f -p 80 -h /www & wait"]
files      = { "/www/index.html" = "./index.html" }
env        = { VERSION = "${version}" }
replicas   = 2
publish    = ["18081:80"]
health     = { tcp = 80, interval = "200ms" }
update     = { order = "start-first" }
stop-grace = "5s"
`;
}

/** A program of this host with the libraries it needs, as entries of an image's `files`; they lie in the stack's folder. */
function programFiles(program: string): string {
  return [program, ...librariesOf(program)].map((path) => `"${path}" = "./${basename(path)}"`).join(", ");
}

function librariesOf(program: string): readonly string[] {
  const { stdout } = spawnSync("ldd", [program], { encoding: "utf8" });
  return stdout.match(/\/\S+/g) ?? [];
}

let daemon: TestDaemon;
let file: string;

before(async () => {
  daemon = await TestDaemon.start();
  const folder = daemon.folder("line", { "croft.toml": stackFile(), "index.html": "a page\n" });
  for (const path of ["/usr/bin/socat", ...librariesOf("/usr/bin/socat")])
    copyFileSync(path, join(folder, basename(path)));
  file = join(folder, "croft.toml");
  await up();
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

async function up(shape?: Shape): Promise<void> {
  writeFileSync(file, stackFile(shape));
  const { code, stdout, stderr } = await daemon.croft(["up", file, "--yes"]);
  assert.equal(code, 0, stdout + stderr);
}

/** A connection that sends all the time and checks that all of it comes back. */
class Stream implements Disposable {
  readonly #socket = createConnection({ port: 18007, host: "127.0.0.1" });
  readonly #timer: NodeJS.Timeout;
  #sent = "";
  #heard = "";
  #failed: Error | undefined;

  constructor() {
    this.#socket.setEncoding("utf8").on("data", (text: string) => (this.#heard += text));
    this.#socket.on("error", (error) => (this.#failed = error));
    this.#socket.on("close", () => (this.#failed ??= new Error("it was closed")));
    let count = 0;
    this.#timer = setInterval(() => {
      count += 1;
      this.#sent += `${count}\n`;
      this.#socket.write(`${count}\n`);
    }, 5);
  }

  /** Resolves when everything sent until now has come back. */
  async isWhole(): Promise<void> {
    const wanted = this.#sent.length;
    const untilMs = Date.now() + 20_000;
    while (this.#heard.length <= wanted) {
      if (this.#failed !== undefined) throw this.#failed;
      if (Date.now() > untilMs) throw new Error("bytes stopped flowing");
      await sleep(20);
    }
    assert.ok(this.#sent.startsWith(this.#heard), "bytes came back changed");
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#socket.destroy();
  }
}

/** One datagram there and back, from one and the same socket; tried a few times, as one must with UDP. */
async function echoDatagram(socket: ReturnType<typeof createSocket>, text: string): Promise<void> {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const heard = new Promise<boolean>((resolve) => {
      socket.removeAllListeners("message").once("message", (bytes) => resolve(bytes.toString() === text));
      setTimeout(() => resolve(false), 500);
    });
    socket.send(text, 18008, "127.0.0.1");
    if (await heard) return;
  }
  throw new Error(`no answer to ${text}`);
}

test("an established connection outlives stops, kills and starts of the daemon, and changes of others", async () => {
  using stream = new Stream();
  const datagrams = createSocket("udp4");
  try {
    await stream.isWhole();
    await echoDatagram(datagrams, "first");
    const steps: Readonly<Record<string, () => Promise<void>>> = {
      "the daemon stopped": () => daemon.stop(),
      "the daemon started": () => daemon.start(),
      "the daemon killed": () => daemon.kill9(),
      "the daemon started again": () => daemon.start(),
      "another container changed": () => up({ other: 2 }),
      "more replicas": () => up({ other: 2, echoes: 3 }),
    };
    for (const [what, step] of Object.entries(steps)) {
      await step();
      await stream.isWhole().catch((thrown: unknown) => assert.fail(`${what}: ${String(thrown)}`));
      await echoDatagram(datagrams, what);
    }
  } finally {
    datagrams.close();
  }
});

test("a rolling update, the new one first, fails no request", async () => {
  const done = new AbortController();
  let answered = 0;
  const failures: string[] = [];
  const client = async (): Promise<void> => {
    while (!done.signal.aborted) {
      try {
        const page = await ask(18081, "127.0.0.1", "GET / HTTP/1.0\r\n\r\n");
        if (page.endsWith("a page")) answered += 1;
        else failures.push(`answered "${page.slice(0, 100)}"`);
      } catch (thrown) {
        failures.push(String(thrown));
      }
    }
  };
  const clients = Array.from({ length: 4 }, client);
  await up({ other: 2, echoes: 3, version: 2 });
  await up({ other: 2, echoes: 3, version: 3 });
  done.abort();
  await Promise.all(clients);
  assert.deepEqual(failures.slice(0, 5), [], `${failures.length} of ${answered + failures.length} failed`);
});
