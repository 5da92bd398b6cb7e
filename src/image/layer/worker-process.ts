import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { backgroundCall, type Clock } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { stream, type Exit, type Streams } from "../../host/process.ts";
import type { FromWorker, ToWorker } from "./worker-message.ts";

/** What a worker needs of our environment: where compiled code is kept, and whom TLS trusts besides the usual. */
const inherited = ["NODE_COMPILE_CACHE", "NODE_EXTRA_CA_CERTS"];
/** Of what a dying worker said, the end is enough. */
const lastWordsLength = 2000;

/** One running worker. Messages are lines of JSON, so secrets go through a pipe and not into arguments. */
export class WorkerProcess {
  readonly #streams: Streams;
  #lastWords = "";
  /** Called for each message, in order. */
  onMessage: (message: FromWorker) => void = () => {};
  /** Settles when it is gone, for whatever reason. */
  readonly exited: Promise<Exit>;

  constructor(clock: Clock, maxHeapMiB: number) {
    const program = fileURLToPath(new URL("./worker.ts", import.meta.url));
    const flags = ["--disable-warning=ExperimentalWarning", `--max-old-space-size=${maxHeapMiB}`];
    const env = Object.fromEntries(
      inherited.flatMap((name) => {
        const value = process.env[name];
        return value === undefined ? [] : [[name, value]];
      }),
    );
    const options = { env, attempted: "start a process that unpacks layers" };
    this.#streams = stream([process.execPath, ...flags, program], options, backgroundCall(clock));
    this.exited = this.#streams.exited;
    createInterface({ input: this.#streams.stdout }).on("line", (line) =>
      this.onMessage(JSON.parse(line) as FromWorker),
    );
    this.#streams.stderr.on("data", (text: Buffer) => {
      this.#lastWords = (this.#lastWords + text.toString("utf8")).slice(-lastWordsLength);
    });
  }

  get pid(): number {
    return this.#streams.pid;
  }

  send(message: ToWorker): void {
    this.#streams.stdin.write(`${JSON.stringify(message)}\n`);
  }

  /** Ends it at once, with what it is at. */
  kill(): void {
    this.#streams.kill("SIGKILL");
  }

  /** Why it ended by itself, as a Fault. */
  death(exit: Exit, attempted: string): Fault {
    const cause = new Error(this.#lastWords.trim() || "it said nothing");
    if (exit.signal === "SIGABRT") {
      // Node aborts when its heap is full.
      return new Fault("exhausted", `${attempted}: its names need more memory than a worker may have`, { cause });
    }
    return new Fault("failed", `${attempted}: the worker ended by ${exit.signal ?? `exit code ${exit.code}`}`, {
      cause,
    });
  }
}
