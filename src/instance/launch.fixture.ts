import type { ProgramLaunch } from "./contract.ts";

/** A program that goes on for a while and asks for nothing, for tests that say what is special about theirs. */
export const plainProgram: Omit<ProgramLaunch, "id" | "root" | "attachment"> = {
  kind: "program",
  hostname: "web-1",
  argv: ["sleep", "1000"],
  env: {},
  user: "",
  workdir: "/",
  terminal: false,
  stdin: false,
  readOnlyRoot: false,
  mounts: [],
  capabilities: { add: [], drop: [] },
  limits: {},
  stopSignal: "SIGTERM",
  log: { maxBytes: 2 ** 20 },
  labels: {},
};
