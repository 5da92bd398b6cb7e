import { Fault } from "../base/fault.ts";
import type { Handover } from "../host/handover.ts";
import { type CommandLine, valueOf } from "./command-line.ts";
import type { Log } from "./log.ts";
import type { ExecScript, MachineMaker } from "./microvm/contract.ts";
import type { Place } from "./place.ts";
import { decide, type Decision, type HostConfig, type Target, targets } from "./route.ts";

/** The version of the specification that is spoken. */
export const specVersion = "1.2.0";

/** What only `bin` can give: the engine for microVMs, and where it can be used. */
export interface Wiring {
  /** Where the runtime that we run in has what the engine needs. */
  readonly maker?: (host: HostConfig) => Promise<MachineMaker>;
  /** The command line of a program that has it, to become where we have not. */
  readonly elsewhere?: () => readonly string[];
  readonly execScript: () => Promise<ExecScript>;
}

/** What every command is handed. */
export interface Ground {
  readonly line: CommandLine;
  readonly place: Place;
  readonly host: HostConfig;
  readonly log: Log;
  readonly handover: Handover;
  readonly wiring: Wiring;
  /** The command line as it was given. */
  readonly argv: readonly string[];
}

/** Which engine serves a container, and why: what was said on the command line, else by the host's rules. */
export function decisionFor({ line, host }: Ground, id: string | undefined, config: object): Decision {
  const said = valueOf(line.globals, "engine");
  if (said === undefined) return decide(host.rules, id, { ...config });
  if (!(targets as readonly string[]).includes(said)) {
    throw new Fault("invalid", `--engine ${said}: there is ${targets.join(", ")}`);
  }
  return { target: said as Target, why: "--engine" };
}

export function print(text: string): number {
  const { writeSync } = process.getBuiltinModule("node:fs");
  const bytes = Buffer.from(text);
  let written = 0;
  // A pipe that is full takes a part at a time.
  while (written < bytes.length) written += writeSync(1, bytes, written);
  return 0;
}

/** How many descriptors beyond the standard ones the container is to have. */
export function keptFds({ flags }: CommandLine): number {
  const said = valueOf(flags, "preserve-fds") ?? "0";
  const listening = Number(process.env["LISTEN_FDS"] ?? 0);
  if (!/^\d{1,5}$/.test(said)) throw new Fault("invalid", `--preserve-fds ${said}: expected a number`);
  return Number(said) + (Number.isInteger(listening) && listening > 0 ? listening : 0);
}
