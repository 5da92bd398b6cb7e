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
      verb("check", "Say what is wrong with a stack file", () => import("./stack/check.ts")),
      verb("down", "Stop and remove a stack; its volumes stay", () => import("./stack/down.ts")),
      verb("history", "Show the generations of a stack", () => import("./stack/history.ts")),
      verb("diff", "Show what differs between two generations", () => import("./stack/diff.ts")),
      verb("rollback", "Move a stack back to an earlier generation", () => import("./stack/rollback.ts")),
      noun("stack", "Stacks", [verb("ls", "List stacks", () => import("./stack/ls.ts"))]),
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
      verb("stop", "Stop instances until they are started or applied again", () => import("./instance/stop.ts")),
      verb("restart", "Stop and start instances", () => import("./instance/restart.ts")),
      verb("kill", "Send a signal to the main process of instances", () => import("./instance/kill.ts")),
      verb("pause", "Freeze instances where they are", () => import("./instance/pause.ts")),
      verb("unpause", "Let frozen instances go on", () => import("./instance/unpause.ts")),
      verb("suspend", "Keep the memory of machines on disk, and end them", () => import("./instance/suspend.ts")),
      verb("resume", "Let suspended instances go on", () => import("./instance/resume.ts")),
      verb("rm", "Remove instances that croft run made", () => import("./instance/rm.ts")),
      verb("top", "Show the processes of an instance", () => import("./instance/top.ts")),
      verb("stats", "Show what instances use", () => import("./instance/stats.ts")),
      verb("inspect", "Show everything about an instance", () => import("./instance/inspect.ts")),
    ],
  },
  {
    title: "Machines",
    nodes: [
      noun("vm", "Full machines", [
        verb("console", "Connect this terminal to the serial console", () => import("./vm/console.ts")),
        verb("screenshot", "Take a picture of the screen", () => import("./vm/screenshot.ts")),
        verb("guest", "Ask the guest what it is called and where it is reached", () => import("./vm/guest.ts")),
        verb("export", "Write a whole machine into one file", () => import("./vm/export.ts")),
        verb("import", "Make a machine from such a file", () => import("./vm/import.ts")),
        verb("clone", "Make another machine with the same disks", () => import("./vm/clone.ts")),
      ]),
      noun("snapshot", "Snapshots of machines", [
        verb("create", "Keep a machine as it is now", () => import("./snapshot/create.ts")),
        verb("ls", "List the snapshots of a machine", () => import("./snapshot/ls.ts")),
        verb("revert", "Go back to a snapshot", () => import("./snapshot/revert.ts")),
        verb("rm", "Delete snapshots", () => import("./snapshot/rm.ts")),
      ]),
    ],
  },
  {
    title: "Things",
    nodes: [
      noun("image", "Images, shared by all stacks", [
        verb("ls", "List images", () => import("./image/ls.ts")),
        verb("pull", "Fetch an image from a registry", () => import("./image/pull.ts")),
        verb("push", "Send an image to a registry", () => import("./image/push.ts")),
        verb("build", "Build the images of a stack file", () => import("./image/build.ts")),
        verb("save", "Write images into an archive", () => import("./image/save.ts")),
        verb("load", "Read images from an archive", () => import("./image/load.ts")),
        verb("import", "Bring in a disk image or an ISO", () => import("./image/import.ts")),
        verb("verify", "Hold a disk image or an ISO against what was imported", () => import("./image/verify.ts")),
        verb("tag", "Give an image a further name", () => import("./image/tag.ts")),
        verb("rm", "Take a name of an image away", () => import("./image/rm.ts")),
        verb("gc", "Delete what nothing needs any more", () => import("./image/gc.ts")),
        verb("inspect", "Show everything about an image", () => import("./image/inspect.ts")),
      ]),
      noun("volume", "Volumes: data that outlives generations", [
        verb("ls", "List volumes", () => import("./volume/ls.ts")),
        verb("inspect", "Show everything about a volume", () => import("./volume/inspect.ts")),
        verb("rm", "Delete volumes and their data", () => import("./volume/rm.ts")),
      ]),
      noun("network", "Networks of stacks", [
        verb("ls", "List networks", () => import("./network/ls.ts")),
        verb("inspect", "Show everything about a network", () => import("./network/inspect.ts")),
      ]),
      noun("secret", "Secrets of stacks", [
        verb("ls", "List secrets, without their values", () => import("./secret/ls.ts")),
        verb("set", "Give a secret a new value", () => import("./secret/set.ts")),
        verb("rm", "Remove secrets", () => import("./secret/rm.ts")),
      ]),
      noun("pool", "Pools: where data lives on the host", [verb("ls", "List pools", () => import("./pool/ls.ts"))]),
    ],
  },
  {
    title: "The machine",
    nodes: [
      verb(
        "doctor",
        "Try what this host can do, and say how to mend what it cannot",
        () => import("./doctor/doctor.ts"),
      ),
      verb("events", "Show what happens, and what has happened", () => import("./event/events.ts")),
      noun("operation", "Long work that the daemon does", [
        verb("ls", "List operations", () => import("./operation/ls.ts")),
        verb("watch", "Follow an operation to its end", () => import("./operation/watch.ts")),
        verb("cancel", "Ask operations to stop", () => import("./operation/cancel.ts")),
      ]),
      noun("host", "Hosts", [
        verb("ls", "List hosts", () => import("./host/ls.ts")),
        verb("inspect", "Show everything about the host", () => import("./host/inspect.ts")),
      ]),
      verb("login", "Let the daemon use a registry as somebody", () => import("./registry/login.ts")),
      verb("logout", "Let the daemon forget the credentials for a registry", () => import("./registry/logout.ts")),
      noun("token", "Tokens for use over TCP", [verb("create", "Make a token", () => import("./token/create.ts"))]),
      noun("completion", "Completion of commands in a shell", [
        verb("bash", "Print the script for bash", () => import("./completion/bash.ts")),
        verb("zsh", "Print the script for zsh", () => import("./completion/zsh.ts")),
        verb("fish", "Print the script for fish", () => import("./completion/fish.ts")),
      ]),
      verb("version", "Show the version of the command line and of the daemon", () => import("./version.ts")),
    ],
  },
];

/** What the completion scripts call. Not shown to people. */
const completion: Verb = {
  ...verb("__complete", "Print what could be typed next", () => import("./completion/complete.ts")),
  hidden: true,
};

/** All nodes, those that are hidden included. */
export const nodes: readonly Node[] = [...chapters.flatMap((chapter) => chapter.nodes), completion];
