import { existsSync } from "node:fs";
import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { type InstanceId, parseInstanceId } from "../../base/id.ts";
import type { InstanceEvent, InstanceFacts, Launch, LogLine, LogRange } from "../contract.ts";
import type { MonitorRecord } from "./conmon.ts";
import { ExitWatch } from "./exit-watch.ts";
import type { InstancePaths, Layout } from "./layout.ts";
import { readLog } from "./log-file.ts";
import type { Observation } from "./observe.ts";
import { namesIn } from "./record.ts";
import { watchInstances } from "./watch.ts";

/** How an engine sees its instances. */
export interface Sight {
  observe(paths: InstancePaths): Observation<Launch>;
  facts(id: InstanceId, paths: InstancePaths): InstanceFacts;
  /** Of all that might be an instance. Default: what has a directory or a log. */
  readonly names?: () => Iterable<string>;
}

/**
 * What engines have in common whose instances conmon stays with: which there are, who is told what becomes of them, and
 * what they wrote. It remembers who listens, and which starts are not told yet; everything else is seen anew.
 */
export class Monitored {
  readonly exits: ExitWatch;
  /** Let go, but not told so yet: an exit that is found meanwhile has to wait for its turn. */
  readonly releasing = new Set<InstanceId>();
  readonly #layout: Layout;
  readonly #sight: Sight;
  readonly #listeners = new Set<(event: InstanceEvent) => void>();

  constructor(layout: Layout, sight: Sight) {
    this.exits = new ExitWatch(layout.exitDir);
    this.#layout = layout;
    this.#sight = sight;
  }

  emit(event: InstanceEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** All of which anything is left. */
  list(): InstanceFacts[] {
    const { instancesDir, logsDir } = this.#layout;
    const names = this.#sight.names?.() ?? [instancesDir, logsDir].flatMap(namesIn);
    return [...new Set(names)]
      .filter((name): name is InstanceId => parseInstanceId(name) !== undefined)
      .map((id) => this.#factsOf(id));
  }

  /** One that cannot be looked at is there all the same, to be removed or made again, and hides none of the others. */
  #factsOf(id: InstanceId): InstanceFacts {
    try {
      return this.#sight.facts(id, this.#layout.of(id));
    } catch (error) {
      // That we lack memory or descriptors says nothing about it.
      if (isFault(error, "exhausted")) throw error;
      return { id, status: "created", intact: false, limits: {} };
    }
  }

  watch(call: Call): AsyncGenerator<InstanceEvent> {
    const watched = {
      layout: this.#layout,
      exits: this.exits,
      listen: (listener: (event: InstanceEvent) => void) => {
        this.#listeners.add(listener);
        return () => void this.#listeners.delete(listener);
      },
      isReleasing: (id: InstanceId) => this.releasing.has(id),
      running: () => this.list().filter(({ status }) => status === "running"),
      observe: (paths: InstancePaths) => this.#sight.observe(paths),
    };
    return watchInstances(watched, call);
  }

  async *logs(id: InstanceId, range: LogRange, call: Call): AsyncGenerator<LogLine> {
    const paths = this.#layout.of(id);
    if (!existsSync(paths.logDir)) throw new Fault("not-found", `read the log of ${id}: there is none`);
    // The run that goes on, or the next one: it may be over, and another have begun, before anybody looks.
    let run: number | undefined;
    const hasEnded = (): boolean => {
      const { exit, startedMs } = this.#sight.observe(paths);
      run ??= startedMs;
      return !existsSync(paths.dir) || exit !== undefined || (startedMs !== undefined && startedMs !== run);
    };
    const woken = (look: () => void): (() => void) => {
      return this.exits.listen((name) => {
        if (name === id) look();
      });
    };
    yield* readLog(paths.logDir, range, hasEnded, woken, call);
  }

  /** The exit code of what runs or is about to, when it has ended; 255 when nobody can say. */
  async exitCode(id: InstanceId, call: Call): Promise<number> {
    const paths = this.#layout.of(id);
    const isKnown = (): boolean => {
      const seen = this.#sight.observe(paths);
      return seen.exit !== undefined || (!isUp(seen) && seen.monitor === undefined);
    };
    await this.exits.until(id, isKnown, Infinity, call);
    return this.#sight.observe(paths).exit?.code ?? 255;
  }

  /** Waits until the monitor of what was stopped has said how it ended: that is worth a moment, if there is one. */
  async settled(id: InstanceId, call: Call): Promise<void> {
    const paths = this.#layout.of(id);
    const isSettled = (): boolean => {
      const now = this.#sight.observe(paths);
      return now.monitor === undefined || now.exit !== undefined || !now.hasRun;
    };
    await this.exits.until(id, isSettled, settleMs, call);
  }

  /** The monitor of a run that is over ends, too. Alone it was killed, and the instance needs repair. */
  monitorEnded(id: InstanceId, monitor: MonitorRecord): void {
    const seen = this.#sight.observe(this.#layout.of(id));
    if (!isUp(seen)) return;
    if (seen.monitor === undefined || seen.monitor.pid === monitor.pid) this.emit({ kind: "broken", id });
  }
}

const settleMs = 5_000;

type Main = Pick<Observation<Launch>, "main" | "awaitsRelease">;

/** A process of it is there, running or waiting to be let go. */
export function isUp(seen: Pick<Main, "main">): boolean {
  return seen.main !== undefined;
}

export function isRunning<Seen extends Main>(
  seen: Seen,
): seen is Seen & { readonly main: NonNullable<Observation["main"]> } {
  return seen.main !== undefined && !seen.awaitsRelease;
}

/**
 * What a start has to bring up; undefined when it runs already. `precondition` when it runs and nobody would see how it
 * ends, or was never created.
 */
export function launchToStart<Kind extends Launch>(
  id: InstanceId,
  { record, monitor }: Pick<Observation<Kind>, "record" | "monitor">,
  runsAlready: boolean,
): Kind | undefined {
  if (runsAlready && monitor === undefined) {
    throw new Fault("precondition", `start ${id}: it runs, but its monitor was killed`, {
      hint: "remove it and create it again",
    });
  }
  if (runsAlready) return undefined;
  if (record === undefined) {
    throw new Fault("precondition", `start ${id}: it was not created`, { hint: "create it first" });
  }
  return record.launch;
}

export function notRunning(id: InstanceId, verb: string): Fault {
  return new Fault("precondition", `${verb} ${id}: it is not running`, { hint: "start it first" });
}

export function sameLimits(
  { limits: before }: Pick<Launch, "limits">,
  { limits: after }: Pick<Launch, "limits">,
): boolean {
  return before.cpus === after.cpus && before.memoryBytes === after.memoryBytes && before.pids === after.pids;
}
