import { spawnSync } from "node:child_process";
import { type Json, own } from "../config/shape.ts";
import type { Log } from "../log.ts";
import { listOf } from "./process.ts";

/**
 * The caller's hooks for when the program runs. Of one that fails a warning is logged, and the others run all the same, as
 * the specification demands.
 */
export function runHooks(hooks: readonly unknown[], state: Json, log: Pick<Log, "warn">): void {
  for (const [index, hook] of hooks.entries()) {
    const path = own(hook, "path");
    if (typeof path !== "string") continue;
    const [name = path, ...args] = listOf(hook, "args");
    const timeout = own(hook, "timeout");
    const env = Object.fromEntries(listOf(hook, "env").map((pair) => pair.split(/=(.*)/s).slice(0, 2)));
    const { status, signal, stderr, error } = spawnSync(path, args, {
      argv0: name,
      input: JSON.stringify(state),
      encoding: "utf8",
      env: own(hook, "env") == null ? process.env : env,
      timeout: typeof timeout === "number" ? timeout * 1000 : 0,
      killSignal: "SIGKILL",
    });
    if (status === 0) continue;
    const how = status === null ? (error?.message ?? `was ended by ${signal}`) : `ended with ${status}`;
    const said = stderr?.trim() ?? "";
    log.warn(`hooks.poststart[${index}]: ${path}: ${how}${said === "" ? "" : `: ${said}`}`);
  }
}
