import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const patienceMs = 60_000;

/** A daemon of a peer, in the foreground, with its words in a file. */
export interface Daemon {
  readonly pid: number;
  stop(): Promise<void>;
}

/** Starts it and waits until its socket takes connections. Throws with the end of its log when it does not. */
export async function startDaemon(argv: readonly string[], socketPath: string, logPath: string): Promise<Daemon> {
  const [program = "", ...args] = argv;
  const log = openSync(logPath, "a");
  const child = spawn(program, args, { stdio: ["ignore", log, log] });
  closeSync(log);
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const untilMs = performance.now() + patienceMs;
  while (!(await answers(socketPath))) {
    if (child.exitCode !== null || performance.now() > untilMs) {
      child.kill("SIGKILL");
      throw new Error(`${program} did not start:\n${readFileSync(logPath, "utf8").split("\n").slice(-10).join("\n")}`);
    }
    await sleep(50);
  }
  return {
    pid: child.pid ?? 0,
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
    },
  };
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    const settle = (answered: boolean) => (): void => {
      socket.destroy();
      resolve(answered);
    };
    socket.once("connect", settle(true)).once("error", settle(false));
  });
}
