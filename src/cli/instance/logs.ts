import { Fault } from "../../base/fault.ts";
import { parseDurationMs } from "../../base/unit.ts";
import type { LogEntry } from "../../client/message.ts";
import { command as define, flag } from "../command.ts";
import { printJsonLine, type Context } from "../context.ts";
import type { Tint } from "../paint.ts";
import { readCount } from "../value.ts";
import { instancesArgument, meantBy } from "./select.ts";

export const command = define({
  detail: "Standard output goes to standard output, standard error to standard error.",
  examples: [
    ["croft logs web -f", "all replicas of web, as it comes"],
    ["croft logs shop/ --since 10m", "a whole stack, the last ten minutes"],
    ["croft logs db --tail 50 -t", "fifty lines with their times"],
  ],
  flags: {
    follow: flag.toggle("Go on with what comes", { short: "f" }),
    since: flag.text("TIME", "Only from then on: 10m, 2h, 2026-01-31T12:00:00Z"),
    tail: flag.parsed("LINES", "Only the last so many lines that are there", readCount, { short: "n" }),
    timestamps: flag.toggle("Show when each line was written", { short: "t" }),
  },
  args: {
    instances: instancesArgument(),
  },
  async run({ flags, args }, context) {
    const { follow, tail } = flags;
    const since = flags.since === undefined ? undefined : sinceTime(flags.since, context.clock.nowMs());
    const printer = new LogPrinter(context, flags.timestamps, await severalSources(args.instances, context));
    const streams = args.instances.map(async (instance) => {
      const request = { instance, follow, ...(since !== undefined && { since }), ...(tail !== undefined && { tail }) };
      for await (const entry of context.client.instances.streamLogs(request)) await printer.print(entry);
    });
    await Promise.all(streams);
  },
});

/** `10m` ago, or a moment. */
export function sinceTime(text: string, nowMs: number): string {
  const moment = /^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$/.test(text) ? nowMs - parseDurationMs(text) : Date.parse(text);
  if (Number.isNaN(moment)) {
    throw new Fault("invalid", `"${text}" is no moment`, { hint: "write 10m, 2h or 2026-01-31T12:00:00Z" });
  }
  return new Date(moment).toISOString();
}

/** Whether lines must say whose they are. */
async function severalSources(names: readonly string[], { client }: Context): Promise<boolean> {
  if (names.length > 1 || names.some((name) => name.endsWith("/"))) return true;
  const { instances } = await client.instances.list({ all: true });
  return meantBy(names[0] ?? "", instances).length > 1;
}

const sourceTints: readonly Tint[] = ["accent", "good", "warn", "bold"];

class LogPrinter {
  readonly #context: Context;
  readonly #timestamps: boolean;
  readonly #named: boolean;
  readonly #tints = new Map<string, Tint | undefined>();
  #width = 0;
  /** Whose line stands without its end, by stream. */
  readonly #open = new Map<string, string>();

  constructor(context: Context, timestamps: boolean, named: boolean) {
    this.#context = context;
    this.#timestamps = timestamps;
    this.#named = named;
  }

  async print(entry: LogEntry): Promise<void> {
    if (this.#context.json) return await printJsonLine(this.#context, entry);
    const screen = entry.stream === "stderr" ? this.#context.err : this.#context.out;
    const continues = this.#open.get(entry.stream) === entry.instance;
    const broken = !continues && this.#open.has(entry.stream);
    const head = continues ? "" : this.#head(entry, screen.paint);
    if (entry.partial) this.#open.set(entry.stream, entry.instance);
    else this.#open.delete(entry.stream);
    const line = Buffer.from(entry.line, "base64");
    await screen.write(
      Buffer.concat([Buffer.from(`${broken ? "\n" : ""}${head}`), line, newline(line, entry.partial)]),
    );
  }

  #head({ instance, time = "" }: LogEntry, paint: Context["out"]["paint"]): string {
    const when = this.#timestamps ? `${paint(time, "dim")} ` : "";
    if (!this.#named) return when;
    if (!this.#tints.has(instance)) this.#tints.set(instance, sourceTints[this.#tints.size % sourceTints.length]);
    this.#width = Math.max(this.#width, instance.length);
    return `${paint(instance.padEnd(this.#width), this.#tints.get(instance))} ${paint("│", "dim")} ${when}`;
  }
}

function newline(line: Uint8Array, partial: boolean): Buffer {
  return partial || line.at(-1) === 0x0a ? Buffer.alloc(0) : Buffer.from("\n");
}
