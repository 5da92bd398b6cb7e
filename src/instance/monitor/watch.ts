import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { type InstanceId, parseInstanceId } from "../../base/id.ts";
import type { InstanceEvent, InstanceFacts } from "../contract.ts";
import { Bell } from "./bell.ts";
import type { ExitWatch } from "./exit-watch.ts";
import type { InstancePaths, Layout } from "./layout.ts";
import { keepLog } from "./log-file.ts";
import type { Observation } from "./observe.ts";
import { OomWatch } from "./oom-watch.ts";
import { namesIn } from "./record.ts";

/** How often to look whether conmon began a new log file. */
const logLookMs = 5_000;

export interface Watched {
  readonly layout: Layout;
  readonly exits: ExitWatch;
  /** What this engine object does itself: starts, and monitors that it sees die. */
  listen(listener: (event: InstanceEvent) => void): () => void;
  /** Whether a start is about to be told: its end is looked at again right after. */
  isReleasing(id: InstanceId): boolean;
  running(): readonly InstanceFacts[];
  observe(paths: InstancePaths): Pick<Observation, "exit" | "main">;
}

/** State changes from now on; also keeps the history of logs while it runs. */
export async function* watchInstances(watched: Watched, call: Call): AsyncGenerator<InstanceEvent> {
  const { layout, exits } = watched;
  const queue: InstanceEvent[] = [];
  const bell = new Bell();
  const push = (event: InstanceEvent): void => {
    queue.push(event);
    bell.ring();
  };
  const oom = new OomWatch(layout, (id) => push({ kind: "oom", id }));
  const stopExits = exits.listen((name) => {
    if (parseInstanceId(name) === undefined) return;
    const id = name as InstanceId;
    if (watched.isReleasing(id)) return;
    // Nobody is there to catch what is thrown here: it would end the daemon.
    try {
      const { exit, main } = watched.observe(layout.of(id));
      // The file also changes when it is cleared away for the next run.
      if (exit === undefined || main !== undefined) return;
      oom.drop(id);
      push({ kind: "exited", id, exit });
    } catch {
      push({ kind: "broken", id });
    }
  });
  const stopEvents = watched.listen((event) => {
    if (event.kind === "started") oom.add(event.id);
    push(event);
  });
  const onAbort = (): void => bell.ring();
  call.signal.addEventListener("abort", onAbort, { once: true });
  let stopTicking: (() => void) | undefined;
  const tick = (): void => {
    for (const name of namesIn(layout.logsDir)) keepLog(join(layout.logsDir, name));
    stopTicking = call.clock.after(logLookMs, tick);
  };
  try {
    for (const { id } of watched.running()) oom.add(id);
    tick();
    while (!call.signal.aborted) {
      await bell.heard();
      for (let event = queue.shift(); event !== undefined; event = queue.shift()) yield event;
    }
  } finally {
    call.signal.removeEventListener("abort", onAbort);
    stopTicking?.();
    stopEvents();
    stopExits();
    oom.close();
  }
}
