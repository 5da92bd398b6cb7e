import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";

/** Another host on a wire of its own: a network namespace and a veth pair to ours. Goes when it is disposed of. */
export class Neighbour implements Disposable {
  /** Its address, and ours on the wire. */
  readonly address = "192.0.2.2";
  readonly hostAddress = "192.0.2.1";
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  static async move(): Promise<Neighbour> {
    const holder = spawn("unshare", ["-n", "sh", "-c", "echo there; exec sleep 1000000"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(holder.stdout, "data");
    const neighbour = new Neighbour(holder);
    ip("link", "add", "wire0", "type", "veth", "peer", "name", "wire1", "netns", String(holder.pid));
    ip("address", "add", `${neighbour.hostAddress}/24`, "dev", "wire0");
    ip("link", "set", "wire0", "up");
    neighbour.run("ip", "address", "add", `${neighbour.address}/24`, "dev", "wire1");
    neighbour.run("ip", "link", "set", "wire1", "up");
    neighbour.run("ip", "route", "add", "default", "via", neighbour.hostAddress);
    return neighbour;
  }

  /** Runs a program there and returns what it printed, whatever its exit code. */
  run(program: string, ...args: readonly string[]): string {
    const argv = ["-t", String(this.#holder.pid), "-n", program, ...args];
    return spawnSync("nsenter", argv, { encoding: "utf8", timeout: 20_000, input: "" }).stdout;
  }

  [Symbol.dispose](): void {
    this.#holder.kill("SIGKILL");
    spawnSync("ip", ["link", "delete", "wire0"]);
  }
}

function ip(...args: readonly string[]): void {
  const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
}
