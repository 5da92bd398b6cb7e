import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backgroundCall } from "../../base/call.ts";
import { type Streams, run, stream } from "../../host/process.ts";

/** For tests: Debian's docker-registry, the real one, on a free loopback port. */
export class DockerRegistry implements AsyncDisposable {
  /** `127.0.0.1:43210`. */
  readonly domain: string;
  readonly #directory: string;
  readonly #process: Streams;

  private constructor(domain: string, directory: string, process: Streams) {
    this.domain = domain;
    this.#directory = directory;
    this.#process = process;
  }

  /** With a line of an htpasswd file, only its user may do anything. */
  static async start(htpasswd?: string): Promise<DockerRegistry> {
    const call = backgroundCall();
    // In a network namespace of its own, loopback is down.
    await run(["ip", "link", "set", "lo", "up"], {}, call);
    const directory = await mkdtemp(join(tmpdir(), "croft-registry-"));
    const port = await freePort();
    const lines = [
      "version: 0.1",
      "log: { level: error, accesslog: { disabled: true } }",
      `storage: { filesystem: { rootdirectory: ${join(directory, "data")} } }`,
      `http: { addr: "127.0.0.1:${port}" }`,
    ];
    if (htpasswd !== undefined) {
      await writeFile(join(directory, "htpasswd"), `${htpasswd}\n`);
      lines.push(`auth: { htpasswd: { realm: test, path: ${join(directory, "htpasswd")} } }`);
    }
    await writeFile(join(directory, "config.yml"), `${lines.join("\n")}\n`);
    const process = stream(["docker-registry", "serve", join(directory, "config.yml")], {}, call);
    process.stdout.resume();
    process.stderr.resume();
    const registry = new DockerRegistry(`127.0.0.1:${port}`, directory, process);
    for (let attempt = 0; ; attempt += 1) {
      const isUp = await fetch(`http://127.0.0.1:${port}/v2/`).then(
        () => true,
        () => false,
      );
      if (isUp) return registry;
      if (attempt === 100) throw new Error("docker-registry does not answer");
      await call.clock.sleep(50);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.exited;
    await rm(this.#directory, { recursive: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => void server.close(() => resolve()));
  return port;
}
