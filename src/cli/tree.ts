import type { Command } from "./command.ts";

/**
 * Every command there is. Only names and briefs live here, so that `croft ps` loads the code of `ps` and nothing else;
 * the file of a verb declares the rest.
 */
export type Node = Verb | Noun;

export interface Verb {
  readonly kind: "verb";
  readonly name: string;
  readonly brief: string;
  /** Reads a line of completion or the like: not shown to people. */
  readonly hidden?: true;
  load(): Promise<Command>;
}

export interface Noun {
  readonly kind: "noun";
  readonly name: string;
  readonly brief: string;
  readonly verbs: readonly Verb[];
}

/** Nodes that belong together in help. */
export interface Chapter {
  readonly title: string;
  readonly nodes: readonly Node[];
}

function verb(name: string, brief: string, load: () => Promise<{ readonly command: Command }>): Verb {
  return { kind: "verb", name, brief, load: async () => (await load()).command };
}

function noun(name: string, brief: string, verbs: readonly Verb[]): Noun {
  return { kind: "noun", name, brief, verbs };
}

export const chapters: readonly Chapter[] = [
  {
    title: "Stacks",
    nodes: [
      verb(
        "up",
        "Make what a stack file declares run, and follow it until it is healthy",
        () => import("./stack/up.ts"),
      ),
      verb("plan", "Show what would change, and what it costs", () => import("./stack/plan.ts")),
      verb("down", "Stop and remove a stack", () => import("./stack/down.ts")),
    ],
  },
  {
    title: "Instances",
    nodes: [
      verb("run", "Run an image once", () => import("./instance/run.ts")),
      verb("ps", "List instances", () => import("./instance/ps.ts")),
      verb("logs", "Show what instances have written", () => import("./instance/logs.ts")),
      verb("exec", "Run a program inside a running instance", () => import("./instance/exec.ts")),
      verb("attach", "Connect this terminal to the main process of an instance", () => import("./instance/attach.ts")),
      verb("start", "Start stopped instances", () => import("./instance/start.ts")),
      verb(
        "stop",
        "Stop instances; they stay stopped until they are started or applied again",
        () => import("./instance/stop.ts"),
      ),
      verb("restart", "Stop and start instances", () => import("./instance/restart.ts")),
      verb("inspect", "Show everything about an instance", () => import("./instance/inspect.ts")),
    ],
  },
  {
    title: "Things",
    nodes: [noun("image", "Images, shared by all stacks", [verb("ls", "List images", () => import("./image/ls.ts"))])],
  },
];

/** All nodes, those that are hidden included. */
export const nodes: readonly Node[] = chapters.flatMap((chapter) => chapter.nodes);
